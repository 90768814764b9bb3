"""tools/measure_recipes.py: which trainings it makes, what it keeps of them, and the tables."""

import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import RunScript
from run_folders import composed, write_run
from torch import cuda, nn

from fmnist.config.help import CONF
from fmnist.runs import provenance
from fmnist.runs.run import Run
from tools import baseline, measure_recipes
from tools.arguments import exit_status
from tools.results import runner
from tools.results.catalogue import Recipe, ablation_tasks, read_catalogue, recipe_tasks
from tools.results.store import COLUMNS, ResultsStore
from tools.results.tables import fill, make_tables, points

ROOT = CONF.parent
HERE, ELSEWHERE = "AMD EPYC, 2 cores", "Fast One, 8 cores"
ROW: Mapping[str, Any] = {
    "recipe": "quick",
    "variant": "",
    "seed": 0,
    "split": "test",
    "tta": "none",
    "runs": 1,
    "parameters": 12345,
    "epochs": 3,
    "seconds": 30.0,
    "tutorial_epoch_seconds": 12.0,
    "accuracy": 0.92,
    "loss": 0.25,
    "precision": "bf16-mixed",
    "machine": HERE,
    "date": "2026-11-23",
    "version": "57709d7b9",
}
QUICK = Recipe(seeds=2, variants={"flip": ["augment=none"], "smooth_loss": ["loss=cross_entropy", "seed=|"]})


def frame(*rows: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def tables_of(*rows: Mapping[str, Any], **recipes: Recipe) -> dict[str, list[list[str]]]:
    """Return the cells of each table below its heading."""
    return {name: cells(table) for name, table in make_tables(recipes or {"quick": QUICK}, frame(*rows)).items()}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


# The tables.


def test_generating_the_tables_leaves_the_pages_of_the_project_unchanged() -> None:
    catalogue = read_catalogue(ROOT / "tools" / "recipes.yaml")
    tables = make_tables(catalogue, ResultsStore(ROOT / "docs" / "results.csv").read())
    texts = [(ROOT / page).read_text() for page in ("docs/results.md", "docs/lab_notes.md", "README.md")]
    assert [fill(text, tables) for text in texts] == texts, 'make results ARGS="tables" writes them'
    assert [name for name in tables if f"<!-- {name} -->" not in "".join(texts)] == []


def test_a_recipe_has_mean_std_and_medians() -> None:
    values = zip([0.9200, 0.9230, 0.9260], [30.0, 18.0, 24.0], [12.0, 13.0, 14.0], strict=True)
    rows = [
        {**ROW, "seed": seed, "accuracy": accuracy, "seconds": seconds, "tutorial_epoch_seconds": unit}
        for seed, (accuracy, seconds, unit) in enumerate(values)
    ]
    other = Recipe(overrides=["model=mlp"], in_readme=True)
    tables = tables_of(*rows, quick=replace(QUICK, in_readme=True), other=other, third=Recipe())
    # Medians of 30, 18 and 24, and of 30/12, 18/13 and 24/14; the standard deviation with n - 1 is 0.3 points.
    measured = ["`quick`", "12,345", "3", "24.0", "1.71", "92.30 % ± 0.30 (3 seeds)", f"{HERE}, bf16-mixed"]
    assert tables["recipes"] == [
        [*measured, "`python scripts/train.py experiment=quick`"],
        ["`other`", "not measured yet", "", "", "", "", "", "`python scripts/train.py model=mlp`"],
        ["`third`", "not measured yet", "", "", "", "", "", "`python scripts/train.py experiment=third`"],
    ]
    assert tables["recipes short"] == [
        [
            "`quick`: 12,345 parameters, 3 epochs",
            "92.30 % ± 0.30 (3 seeds)",
            f"24.0 s; {HERE}, bf16-mixed",
            "`python scripts/train.py experiment=quick`",
        ],
        ["`other`", "not measured yet", "", "`python scripts/train.py model=mlp`"],
    ]


def test_only_trainings_that_are_alike_are_in_one_mean() -> None:
    rows = [
        ROW,
        {**ROW, "seed": 1, "accuracy": 0.94},
        {**ROW, "accuracy": 0.95, "machine": ELSEWHERE},
        {**ROW, "accuracy": 0.91, "precision": "32-true"},
        {**ROW, "accuracy": 0.99, "split": "val"},
        {**ROW, "accuracy": 0.98, "recipe": "other"},
    ]
    assert [(line[5], line[6]) for line in tables_of(*rows)["recipes"]] == [
        ("93.00 % ± 1.41 (2 seeds)", "AMD EPYC, 2 cores, bf16-mixed"),
        ("95.00 % (1 seed)", "Fast One, 8 cores, bf16-mixed"),
        ("91.00 % (1 seed)", "AMD EPYC, 2 cores, 32-true"),
    ]


def val(variant: str, accuracies: Sequence[float], **values: Any) -> list[dict[str, Any]]:
    row = {**ROW, "variant": variant, "split": "val", **values}
    return [{**row, "seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate(accuracies)]


def test_a_gain_is_the_difference_of_the_means_with_a_pooled_standard_error() -> None:
    rows = [
        *val("", [0.930, 0.920, 0.940]),  # squares from the mean: 1 + 1 points
        *val("flip", [0.921, 0.914, 0.925, 0.920], seconds=60.0),  # 0.01 + 0.36 + 0.25
        *val("smooth_loss", [0.950]),
        *val("", [0.95], machine=ELSEWHERE),
        *val("flip", [0.96, 0.91], machine=ELSEWHERE),
        *val("flip", [0.96], precision="32-true"),
        *val("forgotten", [0.5, 0.7]),
        {**ROW, "accuracy": 0.1},  # of the test images
    ]
    here, there, single = f"{HERE}, bf16-mixed", f"{ELSEWHERE}, bf16-mixed", f"{HERE}, 32-true"
    std = math.sqrt((2 + 0.62) / (2 + 3))
    few, one = std * math.sqrt(1 / 3 + 1 / 4), std * math.sqrt(1 / 3 + 1)
    away = 2.5 * math.sqrt(2) * math.sqrt(1 + 1 / 2)
    smooth = r"`loss=cross_entropy seed=\|`"
    assert tables_of(*rows)["ablations quick"] == [
        ["`quick`", "", "93.00 % ± 1.00 (3 seeds)", "", "30.0", "2.50", here],
        ["flip", "`augment=none`", "92.00 % ± 0.45 (4 seeds)", f"+1.00 ± {few:.2f}", "60.0", "5.00", here],
        ["smooth loss", smooth, "95.00 % (1 seed)", f"-2.00 ± {one:.2f}", "30.0", "2.50", here],
        ["`quick`", "", "95.00 % (1 seed)", "", "30.0", "2.50", there],
        ["flip", "`augment=none`", "93.50 % ± 3.54 (2 seeds)", f"+1.50 ± {away:.2f}", "30.0", "2.50", there],
        ["flip", "`augment=none`", "96.00 % (1 seed)", "-", "30.0", "2.50", single],
    ]
    assert tables_of(rows[0], rows[3])["ablations quick"] == [
        ["`quick`", "", "93.00 % (1 seed)", "", "30.0", "2.50", here],
        ["flip", "`augment=none`", "92.10 % (1 seed)", "+0.90", "60.0", "5.00", here],
        ["smooth loss", smooth, "not measured yet", "", "", "", ""],
    ]
    assert "ablations quick" not in make_tables({"quick": Recipe()}, frame(*rows))
    assert points(-0.0012, math.nan) == "-0.12"


def test_test_time_augmentation_and_ensembles_have_lines_of_their_own() -> None:
    plain = [ROW, {**ROW, "seed": 1, "accuracy": 0.94}]
    flipped = [
        {**row, "tta": "flip", "accuracy": row["accuracy"] + gain}
        for row, gain in zip(plain, [0.001, 0.003], strict=True)
    ]
    ensemble = {**ROW, "runs": 2, "accuracy": 0.9333}
    elsewhere = {**ensemble, "machine": ELSEWHERE, "accuracy": 0.5}
    rows = [*plain, *flipped, ensemble, {**ensemble, "tta": "flip", "accuracy": 0.935}, elsewhere]
    test = "python scripts/evaluate.py 'run=outputs/results/quick/test_seed_"
    assert tables_of(*rows)["test time"] == [
        ["`quick`", "1", "none", "93.00 % ± 1.41 (2 seeds)", "", f"`{test}0/*'`"],
        ["`quick`", "1", "flip", "93.20 % ± 1.56 (2 seeds)", "+0.20 ± 0.10", f"`{test}0/*' tta=flip`"],
        ["`quick`", "2", "none", "93.33 %", "+0.33", f"`{test}*/*'`"],
        ["`quick`", "2", "flip", "93.50 %", "+0.50", f"`{test}*/*' tta=flip`"],
    ]
    assert make_tables({"quick": QUICK}, frame(*plain))["test time"] == "not measured yet"
    for name in ("recipes", "recipes short"):
        assert tables_of(*rows)[name] == tables_of(*plain)[name]


def test_tables_go_between_their_markers_and_nothing_else_changes() -> None:
    text = (
        "a\n<!-- recipes -->old\n<!-- /recipes -->\nb <!-- note --> c\n"
        "<!-- ablations quick -->\n<!-- /ablations quick -->"
    )
    tables = {"recipes": r"| \1 |", "ablations quick": "| 2 |", "recipes short": "| 3 |"}
    once = fill(text, tables)
    assert once == (
        "a\n<!-- recipes -->\n\n| \\1 |\n\n<!-- /recipes -->\nb <!-- note --> c\n"
        "<!-- ablations quick -->\n\n| 2 |\n\n<!-- /ablations quick -->"
    )
    assert fill(once, tables) == once
    for wrong, message in {
        "<!-- recipes -->": "must come in pairs",
        "<!-- recipes --><!-- /recipes --><!-- recipes -->": "must come in pairs",
        "<!-- ablations quik --><!-- /ablations quik -->": "no such table; did you mean ablations quick",
    }.items():
        with pytest.raises(ValueError, match=message):
            fill(wrong, tables)


# The rows.


def test_rows_are_written_with_fixed_decimals_and_read_again(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "results.csv")
    assert store.read().empty
    store.add([{**ROW, "seconds": 1.23456, "loss": math.nan}, {**ROW, "seed": 1, "variant": "flip", "version": ""}])
    heading, first, second = store.file.read_text().splitlines()
    assert heading == ",".join(COLUMNS)
    assert first == (
        'quick,,0,test,none,1,12345,3,1.2346,12.0000,0.9200,nan,bf16-mixed,"AMD EPYC, 2 cores",2026-11-23,57709d7b9'
    )
    assert second.endswith("2026-11-23,")
    before = store.file.read_bytes()
    store.write(store.read())
    assert store.file.read_bytes() == before
    assert store.read().loc[1].to_dict() == {**ROW, "seed": 1, "variant": "flip", "version": ""}


@pytest.mark.parametrize("text", ["", "a,b\n", f"{','.join(COLUMNS)}\nquick,,x", f"{','.join(COLUMNS)}\n1,2,3,4,x,y"])
def test_a_file_that_holds_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(ValueError, match=r"results\.csv"):
        ResultsStore(tmp_path / "results.csv").read()


def test_a_training_has_one_row_of_each_machine(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "results.csv")
    flipped, ensemble = {**ROW, "tta": "flip"}, {**ROW, "runs": 3}
    store.add([ROW, flipped, ensemble, {**flipped, "machine": ELSEWHERE}, {**flipped, "recipe": "other"}])
    store.add([{**ROW, "accuracy": 0.93}])
    rows = store.read()
    assert len(rows) == 5
    assert rows.accuracy.iloc[-1] == 0.93
    store.drop_evaluations("quick", HERE)
    assert [*zip(store.read().recipe, store.read().tta, store.read().machine, strict=True)] == [
        ("quick", "flip", ELSEWHERE),
        ("other", "flip", HERE),
        ("quick", "none", HERE),
    ]


# The trainings.


def test_trainings_of_recipes_and_of_ablations() -> None:
    recipes = {"quick": QUICK, "other": Recipe("gpu", overrides=["model=mlp"], seeds=1)}
    tasks = recipe_tasks(recipes)
    assert [(task.recipe, task.seed, task.split, task.hardware) for task in tasks] == [
        ("quick", 0, "test", "cpu"),
        ("quick", 1, "test", "cpu"),
        ("other", 0, "test", "gpu"),
    ]
    assert [task.overrides for task in tasks[1:]] == [["experiment=quick", "seed=1"], ["model=mlp", "seed=0"]]
    assert len(recipe_tasks(recipes, 3)) == 6
    tasks = ablation_tasks(recipes, 100, 2)
    names = [(task.variant, task.seed) for task in tasks]
    assert names == [("", 0), ("flip", 0), ("smooth_loss", 0), ("", 1), ("flip", 1), ("smooth_loss", 1)]
    assert [task.folder for task in tasks[:2]] == ["val_seed_0", "val_flip_seed_0"]
    assert str(tasks[4]) == "quick, flip, seed 1"
    assert tasks[4].overrides[:3] == ["experiment=quick", "augment=none", "data.val_size=100"]
    assert tasks[4].overrides[-2:] == ["test=false", "seed=1"]


def test_only_the_last_epoch_of_an_ablation_is_validated(train: RunScript) -> None:
    (task,) = [task for task in ablation_tasks({"quick": QUICK}, 100, 1) if not task.variant]
    run = Run(train(*task.overrides[1:]).run)
    epochs = pd.read_csv(run.history_file)["val/accuracy"]
    assert list(epochs.notna()) == [True, False, True]
    metrics = run.load_metrics()
    assert metrics["checkpoint"] == "best.ckpt"
    assert metrics["val/accuracy"] == pytest.approx(epochs.iloc[-1], abs=1e-4)
    assert "test/accuracy" not in metrics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {hardware: tpu}", "a.hardware=tpu.*'cpu' or 'gpu'"),
        ("a: {seed: 1}", "a.seed: there is no such argument; did you mean seeds"),
        ("a: {variants: {b: c}}", "a.variants="),
        ("a: {variants: {b/c: [d]}}", "a: 'b/c' must consist of letters"),
        ("a b: {}", "'a b' must consist of letters"),
        ("a: [", "can't be read"),
    ],
)
def test_a_catalogue_is_checked(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipes.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_catalogue(file)


# The machine, the code, and the tutorial epoch.


def test_processors_of_one_name_have_their_model(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    assert provenance.cpu_name(file) == platform.processor()  # there is no such file
    file.write_text("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\ncpu family\t: 9\n")
    assert provenance.cpu_name(file) == "AMD EPYC (family 25, model 17)"


def test_a_tutorial_epoch_is_scaled_from_some_steps(monkeypatch: pytest.MonkeyPatch, data_root: Path) -> None:
    calls = []

    def loop(*arguments: object) -> baseline.Timed:
        calls.append(arguments[-2:])
        assert isinstance(arguments[0], nn.Module)
        return baseline.Timed(15_000, 2.5)

    monkeypatch.setattr(baseline, "train_tutorial", loop)
    assert baseline.tutorial_epoch_seconds(data_root, "cpu", 200) == 10.0
    assert calls == [(20, "cpu"), (200, "cpu")]


def test_a_version_is_the_commit_of_the_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, cwd=tmp_path)

    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.code_version() == ""
    for folder in ("conf", "docs", "fmnist", "scripts"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    (tmp_path / "docs" / "file").write_text("2")
    version = runner.code_version()
    assert len(version) == 9
    (tmp_path / "fmnist" / "file").write_text("2")
    assert runner.code_version() == f"{version}+"


# The whole.

Measure = Callable[..., int]


@pytest.fixture
def measure(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Run tools/measure_recipes.py with a tiny recipe `quick` on the made-up images, and return its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "cpu_name", lambda: "AMD EPYC")
    Path("page.md").write_text(
        "mine\n<!-- recipes -->\n<!-- /recipes -->\n<!-- ablations quick -->\n<!-- /ablations quick -->\n"
    )
    overrides = ["data=idx", "data.val_size=0", "data.batch_size=50", "model.channels=[4]", "pictures=none"]
    write_catalogue([*overrides, "report=false", "trainer.max_epochs=1"])
    words = ["--catalogue", "recipes.yaml", "--csv", "results.csv", "--pages", "page.md", "--data", str(data_root)]
    words += ["--tutorial-steps", "2", "--val-size", "100"]
    return lambda *arguments: exit_status(measure_recipes.main, [*arguments, *words])


def write_catalogue(overrides: Sequence[str], variant: str = "augment=none", hardware: str = "cpu") -> None:
    entry = f"hardware: {hardware}, seeds: 2, ablation_seeds: 1, overrides: {[*overrides]}"
    Path("recipes.yaml").write_text(f"quick: {{{entry}, variants: {{flip: ['{variant}']}}}}")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let trainings leave their folders at once. Return their overrides."""
    commands: list[list[str]] = []
    units = iter(range(10, 100, 2))
    composed(())

    def train(command: Sequence[str], keep_open: Sequence[int]) -> None:
        assert keep_open
        words = dict(word.split("=", 1) for word in command[2:])
        commands.append([*command[2:]])
        folder = Path(words["outputs"].strip('"'), words["name"].strip('"'), f"run_{len(commands)}")
        seed = int(words["seed"])
        score = 0.9 + 0.01 * seed - 0.02 * ("augment" in words)
        run = Run(write_run(folder, accuracy=score, test=score, seed=seed, precision="32-true"))
        run.save_metrics({**run.load_metrics(), "test/loss": None})

    monkeypatch.setattr(runner, "run_process", train)
    monkeypatch.setattr(runner, "tutorial_epoch_seconds", lambda *_: float(next(units)))
    return commands


def fail_at(monkeypatch: pytest.MonkeyPatch, seed: int, error: BaseException, *, trained: bool = False) -> None:
    """Let the training of a seed fail, or what follows on it."""
    original = runner.run_process

    def train(command: Sequence[str], keep_open: Sequence[int]) -> None:
        if f"seed={seed}" not in command or trained:
            original(command, keep_open)  # type: ignore[arg-type]
        if f"seed={seed}" in command:
            raise error

    monkeypatch.setattr(runner, "run_process", train)


def rows_here() -> pd.DataFrame:
    return ResultsStore(Path("results.csv")).read()


@pytest.mark.slow
def test_a_real_training_becomes_a_row(measure: Measure) -> None:
    assert measure("recipes", "--seeds", "1") == 0
    (row,) = rows_here().to_dict("records")
    (folder,) = Path("outputs/results/quick/test_seed_0").iterdir()
    metrics = Run(folder).load_metrics()
    assert (row["recipe"], row["variant"], row["seed"], row["split"]) == ("quick", "", 0, "test")
    assert (row["parameters"], row["epochs"], row["seconds"]) == (metrics["parameters"], 1, metrics["train/seconds"])
    assert (row["accuracy"], row["loss"]) == (round(metrics["test/accuracy"], 4), round(metrics["test/loss"], 4))
    assert row["tutorial_epoch_seconds"] > row["seconds"] > 0  # 60,000 images and fifty filters against 600 and four
    assert row["machine"] == f"AMD EPYC, {os.cpu_count()} cores"
    assert f"| {100 * row['accuracy']:.2f} % (1 seed) |" in Path("page.md").read_text()


def test_an_interrupted_measurement_resumes_with_the_seeds_that_are_left(
    measure: Measure, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 1, KeyboardInterrupt())
        assert measure() == 130
    assert list(rows_here().seed) == [0]
    assert "| 90.00 % (1 seed) |" in Path("page.md").read_text()
    assert measure("recipes") == 0
    assert ["seed=0" in words for words in trained] == [True, False]
    # Tutorial epochs: 10 and 12 around the first training, 14 before the interrupted one, 14 and 16 around the last.
    found = rows_here()[["accuracy", "seconds", "tutorial_epoch_seconds"]]
    assert found.to_numpy().tolist() == [[0.9, 10, 11], [0.91, 10, 15]]
    assert math.isnan(rows_here().loss[0])
    assert "| 90.50 % ± 0.71 (2 seeds) |" in Path("page.md").read_text()
    capsys.readouterr()
    assert measure() == 0
    assert "nothing is left to be measured" in capsys.readouterr().out
    assert len(trained) == 2
    assert measure("recipes", "--again", "--seeds", "1") == 0
    assert sorted(rows_here().tutorial_epoch_seconds) == [15, 19]


@pytest.mark.usefixtures("trained")
def test_an_earlier_run_is_removed_when_the_row_of_a_later_one_is_written(measure: Measure) -> None:
    runs = Path("outputs/results/quick/test_seed_0")
    assert measure("recipes", "--seeds", "1") == 0
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 0, KeyboardInterrupt(), trained=True)
        assert measure("recipes", "--seeds", "1", "--again") == 130
    assert [run.name for run in sorted(runs.iterdir())] == ["run_1", "run_2"]
    assert measure("recipes", "--seeds", "1", "--again") == 0
    assert [run.name for run in runs.iterdir()] == ["run_3"]


def test_ablations_use_no_test_image(measure: Measure, trained: list[list[str]]) -> None:
    assert measure("ablations") == 0
    found = rows_here()[["variant", "split", "accuracy"]]
    assert found.to_numpy().tolist() == [["", "val", 0.9], ["flip", "val", 0.88]]
    assert "augment=none" in trained[1]
    for words in trained:
        assert {"data.val_size=100", "test=false", "trainer.accelerator=cpu"} < {*words}
    page = Path("page.md").read_text()
    assert "| flip | `augment=none` | 88.00 % (1 seed) | +2.00 |" in page
    assert "| `quick` | not measured yet |" in page


@pytest.mark.slow
def test_networks_are_evaluated_with_test_time_augmentation_and_together(
    measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    def assert_refused(message: str) -> None:
        capsys.readouterr()
        assert measure("tta") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line

    assert_refused("tta: none of quick has been measured on this machine")
    assert measure() == 0
    assert measure("tta") == 0
    rows = rows_here()
    assert sorted(zip(rows.tta, rows.runs, rows.seed, strict=True)) == sorted(
        [(tta, 1, seed) for tta in ("none", "flip", "flip_shift") for seed in (0, 1)]
        + [(tta, 2, 0) for tta in ("none", "flip", "flip_shift")]
    )
    ensemble = rows[(rows.runs == 2) & (rows.tta == "none")].iloc[0]
    assert ensemble.parameters == 2 * rows.parameters[0]
    assert ensemble.seconds == pytest.approx(rows.seconds[:2].sum())
    kept = Path("results.csv").read_text()
    assert measure("tta") == 0
    assert Path("results.csv").read_text() == kept
    rows.loc[0, "accuracy"] = 0.0123
    ResultsStore(Path("results.csv")).write(rows)
    assert_refused("and 0.0123 in the results")
    shutil.rmtree("outputs/results/quick/test_seed_0")
    assert_refused("test_seed_0: the run is gone")


@pytest.mark.skipif(cuda.is_available(), reason="there is a GPU")
def test_a_recipe_that_needs_a_gpu_is_left_out(
    measure: Measure, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_catalogue(["model=mlp"], hardware="gpu")
    assert measure() == 0
    assert "quick is left out: it needs a GPU" in capsys.readouterr().out
    assert not trained
    assert "| `quick` | not measured yet |" in Path("page.md").read_text()


@pytest.mark.parametrize(
    ("catalogue", "arguments", "fragments"),
    [
        ((["data=idx", "data.val_size=0"], "augment=non"), ["ablations"], ["quick.variants.flip: ", "non"]),
        ((["experiment=nope"],), [], ["quick: ", "experiment/nope"]),
        ((["model.dropout=2"],), [], ["quick: model.dropout=2"]),
        ((["model=mlp"],), ["--recipes", "quik"], ["quik: there is no such recipe; did you mean quick"]),
        ((["model=mlp"],), ["table"], ["table", "tables"]),
        ((["model=mlp"],), ["--seeds", "0"], ["--seeds", "at least 1"]),
        ((["model=mlp"],), ["--pages", "none.md"], ["none.md", "No such file"]),
        ((["model=mlp"],), ["--pages", "recipes.yaml", "--catalogue", "none.yaml"], ["none.yaml", "No such file"]),
    ],
)
def test_invalid_arguments_are_one_line_before_anything_is_measured(
    catalogue: Sequence[Any],
    arguments: list[str],
    fragments: list[str],
    measure: Measure,
    trained: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_catalogue(*catalogue)
    own = exit_status(measure_recipes.main, [*arguments, "--csv", "x.csv"]) if "--pages" in arguments else None
    assert (own or measure(*arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(fragment in line for fragment in fragments)
    assert not trained


@pytest.mark.usefixtures("trained")
def test_a_training_that_fails_is_one_line_and_what_was_measured_stays(
    measure: Measure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, 1, ValueError("train.py failed: error: the loss isn't finite"))
    assert measure() == 2
    assert capsys.readouterr().err == "error: train.py failed: error: the loss isn't finite\n"
    assert len(rows_here()) == 1


@pytest.mark.slow
def test_a_training_that_outlives_a_killed_measurement_keeps_the_lock(
    measure: Measure, tmp_path: Path, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    child = "import sys, time; print(flush=True, file=sys.stderr); open('started', 'w').close(); time.sleep(300)"
    code = (
        "import sys; from pathlib import Path; from tools.processes import run_process; "
        "from tools.results.runner import locked\n"
        f"with locked(Path('outputs/results')) as lock: run_process([sys.executable, '-S', '-c', {child!r}], [lock])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) as measurement:
        while not (tmp_path / "started").exists():
            assert measurement.poll() is None
            time.sleep(0.05)
        (launcher,) = Path(f"/proc/{measurement.pid}/task/{measurement.pid}/children").read_text().split()
        measurement.kill()
    try:
        assert measure() == 2
        assert "outputs/results: another process is measuring" in capsys.readouterr().err
        assert not trained
    finally:
        os.killpg(int(launcher), signal.SIGKILL)
