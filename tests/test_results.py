"""scripts/results.py: which trainings it makes, what it keeps of them, and the tables that come of it."""

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript
from hydra import compose, initialize_config_dir
from run_folders import composed, write_run
from torch import nn

from fmnist.compare.statistics import sample
from fmnist.config.help import CONF
from fmnist.config.instantiate import plain_config
from fmnist.runs import provenance as record
from fmnist.runs.run import Run
from tools.benchmarks import tutorial
from tools.results import mistakes
from tools.results import runs as results_runs
from tools.results.mistake_tables import mistake_tables
from tools.results.mistakes import Miss, Twin, find_misses, find_twins, nearest
from tools.results.pages import filled
from tools.results.recipes import Recipe, ablation_tasks, choose, left, read_catalogue, recipe_tasks
from tools.results.rows import Row, as_csv, put, read_rows, write_rows
from tools.results.tables import ablations_table, points, recipes_table, result_tables, short_table, views_table

ROW = Row(
    recipe="quick",
    variant="",
    seed=0,
    split="test",
    views="none",
    runs=1,
    parameters=12345,
    epochs=3,
    seconds=30.0,
    tutorial_epoch_seconds=12.0,
    accuracy=0.92,
    loss=0.25,
    precision="bf16-mixed",
    machine="AMD EPYC, 2 cores",
    date="2026-11-23",
    version="57709d7b9",
)
ELSEWHERE = "Fast One, 8 cores"
QUICK = Recipe(seeds=2, variants={"flip": ["augment=none"], "smooth_loss": ["loss=cross_entropy", "seed=|"]})


def cells(table: str) -> list[list[str]]:
    """What stands in the lines of a Markdown table below its heading."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


# The tables.


def test_a_recipe_has_its_mean_its_spread_and_its_medians() -> None:
    accuracies, seconds = [0.9200, 0.9230, 0.9260], [30.0, 18.0, 24.0]
    rows = [
        replace(ROW, seed=seed, accuracy=accuracy, seconds=time, tutorial_epoch_seconds=12.0 + seed)
        for seed, (accuracy, time) in enumerate(zip(accuracies, seconds, strict=True))
    ]
    table = recipes_table({"quick": QUICK, "other": Recipe(words=["model=mlp"])}, rows)
    # Medians of 30, 18 and 24, and of 30/12, 18/13 and 24/14; the standard deviation with n - 1 is 0.3 points.
    measured = ["`quick`", "12,345", "3", "24.0", "1.71", "92.30 % ± 0.30 (3 seeds)", "AMD EPYC, 2 cores, bf16-mixed"]
    assert cells(table) == [
        [*measured, "`python scripts/train.py experiment=quick`"],
        ["`other`", "not measured yet", "", "", "", "", "", "`python scripts/train.py model=mlp`"],
    ]
    assert table.splitlines()[1].count("---:") == 5


def test_only_trainings_that_are_alike_are_in_one_mean() -> None:
    rows = [
        ROW,
        replace(ROW, seed=1, accuracy=0.94),
        replace(ROW, seed=0, accuracy=0.95, machine=ELSEWHERE),
        replace(ROW, seed=0, accuracy=0.91, precision="32-true"),
        replace(ROW, seed=0, accuracy=0.99, split="val"),
        replace(ROW, seed=0, accuracy=0.98, recipe="other"),
    ]
    found = [(line[5], line[6]) for line in cells(recipes_table({"quick": QUICK}, rows))]
    assert found == [
        ("93.00 % ± 1.41 (2 seeds)", "AMD EPYC, 2 cores, bf16-mixed"),
        ("95.00 % (1 seed)", "Fast One, 8 cores, bf16-mixed"),
        ("91.00 % (1 seed)", "AMD EPYC, 2 cores, 32-true"),
    ]


def test_the_short_table_says_the_same() -> None:
    table = short_table({"quick": QUICK, "other": Recipe()}, [replace(ROW, seconds=3.0)])
    assert cells(table) == [
        [
            "`quick`: 12,345 parameters, 3 epochs",
            "92.00 % (1 seed)",
            "3.00 s, or 0.25 tutorial epochs; AMD EPYC, 2 cores, bf16-mixed",
            "`python scripts/train.py experiment=quick`",
        ],
        ["`other`", "not measured yet", "", "`python scripts/train.py experiment=other`"],
    ]


def val(variant: str, accuracies: Sequence[float], **values: object) -> list[Row]:
    row = replace(ROW, variant=variant, split="val", **values)
    return [replace(row, seed=seed, accuracy=accuracy) for seed, accuracy in enumerate(accuracies)]


def test_a_gain_is_the_difference_of_the_means_and_its_error_is_told_from_all_lines_together() -> None:
    rows = [
        *val("", [0.930, 0.920, 0.940]),  # squares from the mean: 1 + 1 points
        *val("flip", [0.921, 0.914, 0.925, 0.920], seconds=60.0),  # 0.01 + 0.36 + 0.25
        *val("smooth_loss", [0.950]),
        *val("", [0.95], machine=ELSEWHERE),
        *val("flip", [0.96, 0.91], machine=ELSEWHERE),
        *val("flip", [0.96], precision="32-true"),
        *val("forgotten", [0.5, 0.7]),
        replace(ROW, accuracy=0.1),  # of the test images
    ]
    here, there, single = (
        "AMD EPYC, 2 cores, bf16-mixed",
        "Fast One, 8 cores, bf16-mixed",
        "AMD EPYC, 2 cores, 32-true",
    )
    sd = math.sqrt((2 + 0.62) / (2 + 3))
    few, one = sd * math.sqrt(1 / 3 + 1 / 4), sd * math.sqrt(1 / 3 + 1)
    away = 2.5 * math.sqrt(2) * math.sqrt(1 + 1 / 2)
    smooth = r"`loss=cross_entropy seed=\|`"
    assert cells(ablations_table("quick", QUICK, rows)) == [
        ["`quick`", "", "93.00 % ± 1.00 (3 seeds)", "", "30.0", "2.50", here],
        ["flip", "`augment=none`", "92.00 % ± 0.45 (4 seeds)", f"+1.00 ± {few:.2f}", "60.0", "5.00", here],
        ["smooth loss", smooth, "95.00 % (1 seed)", f"-2.00 ± {one:.2f}", "30.0", "2.50", here],
        ["`quick`", "", "95.00 % (1 seed)", "", "30.0", "2.50", there],
        ["flip", "`augment=none`", "93.50 % ± 3.54 (2 seeds)", f"+1.50 ± {away:.2f}", "30.0", "2.50", there],
        ["flip", "`augment=none`", "96.00 % (1 seed)", "-", "30.0", "2.50", single],
    ]
    assert cells(ablations_table("quick", QUICK, [rows[0], rows[3]]))[:2] == [
        ["`quick`", "", "93.00 % (1 seed)", "", "30.0", "2.50", here],
        ["flip", "`augment=none`", "92.10 % (1 seed)", "+0.90", "60.0", "5.00", here],
    ]
    assert cells(ablations_table("quick", QUICK, []))[1] == ["smooth loss", smooth, "not measured yet", "", "", "", ""]
    assert "ablations quick" not in result_tables({"quick": Recipe()}, rows)


def test_a_difference_of_nothing_is_none() -> None:
    assert points(math.nan, 0.1) == "-"
    assert points(-0.0012, math.nan) == "-0.12"
    assert points(0.0012, 0.0204) == "+0.12 ± 2.04"
    assert sample([0.01, 0.03]).error == pytest.approx(0.01)
    assert math.isnan(sample([]).error)
    assert math.isnan(sample([1.0]).error)


def test_networks_in_other_views_and_together_have_lines_of_their_own() -> None:
    plain = [replace(ROW, seed=seed, accuracy=accuracy) for seed, accuracy in enumerate([0.92, 0.94])]
    flipped = [
        replace(row, views="flip", accuracy=row.accuracy + gain)
        for row, gain in zip(plain, [0.001, 0.003], strict=True)
    ]
    together = replace(ROW, runs=2, accuracy=0.9333)
    elsewhere = replace(together, machine=ELSEWHERE, accuracy=0.5)
    rows = [*plain, *flipped, together, replace(together, views="flip", accuracy=0.935), elsewhere]
    test = "python scripts/evaluate.py 'run=outputs/results/quick/test_seed_"
    assert cells(views_table({"quick": QUICK, "other": Recipe()}, rows)) == [
        ["`quick`", "1", "none", "93.00 % ± 1.41 (2 seeds)", "", f"`{test}0/*'`"],
        ["`quick`", "1", "flip", "93.20 % ± 1.56 (2 seeds)", "+0.20 ± 0.10", f"`{test}0/*' views=flip`"],
        ["`quick`", "2", "none", "93.33 %", "+0.33", f"`{test}*/*'`"],
        ["`quick`", "2", "flip", "93.50 %", "+0.50", f"`{test}*/*' views=flip`"],
    ]
    assert views_table({"quick": QUICK}, plain) == "not measured yet"
    assert cells(recipes_table({"quick": QUICK}, rows)) == cells(recipes_table({"quick": QUICK}, plain))
    assert cells(short_table({"quick": QUICK}, rows)) == cells(short_table({"quick": QUICK}, plain))


# What is missed.


def one_hot(answers: Sequence[int]) -> torch.Tensor:
    """Logits (N, 10) that answer so."""
    return 5 * nn.functional.one_hot(torch.tensor(answers), 10).float()


def twin(image: int, label: str, nearest_label: str, distance: float = 0.5, split: str = "test") -> Twin:
    return Twin(split, image, label, 100 + image, nearest_label, distance)


def test_what_networks_miss() -> None:
    twins = [twin(0, "Coat", "Coat"), twin(1, "Shirt", "Dress", 0.25), twin(2, "Bag", "Bag")]
    networks = [one_hot([4, 3, 8]), one_hot([4, 3, 8]), one_hot([2, 0, 8])]
    first, second = find_misses(networks, torch.tensor([4, 6, 8]), twins)
    assert (first.image, first.label, first.networks, first.missed, first.answer, first.gave) == (
        *(0, "Coat", 3, 1, "Pullover", 1),
    )
    assert (second.image, second.label, second.missed, second.answer, second.gave) == (1, "Shirt", 3, "Dress", 2)
    assert (second.nearest, second.nearest_label, second.distance) == (101, "Dress", 0.25)
    high = math.exp(5) / (math.exp(5) + 9)
    low = (1 - high) / 9
    assert first.label_probability == pytest.approx((2 * high + low) / 3)
    assert second.answer_probability == pytest.approx((2 * high + low) / 3)
    assert second.label_probability == pytest.approx(low)


def test_the_nearest_image_is_found_and_none_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "AT_ONCE", 2)
    images = torch.tensor([0, 250, 10, 252], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 2, 2)
    distance, place = nearest(images, images)
    assert (distance.tolist(), place.tolist()) == ([0, 0, 0, 0], [0, 1, 2, 3])
    distance, place = nearest(images, images, apart=True)
    assert place.tolist() == [2, 3, 0, 1]
    assert distance.tolist() == pytest.approx([10 / 255, 2 / 255, 10 / 255, 2 / 255])
    labels = torch.tensor([0, 1, 2, 3])
    twins = find_twins("train", images, labels, images, labels)
    assert twins[3] == Twin("train", 3, "Dress", 1, "Trouser", pytest.approx(2 / 255))
    assert find_twins("test", images[:1], labels[1:2], images, labels)[0] == Twin(
        "test", 0, "Trouser", 0, "T-shirt/top", 0
    )


def test_tables_of_what_is_missed() -> None:
    def miss(label: str, missed: int, answer: str, nearest_label: str, gave: int | None = None) -> Miss:
        return Miss(7, label, 4, missed, answer, gave or missed, 0.5, 0.1, 3, nearest_label, 0.1)

    misses = [
        miss("Shirt", 4, "Coat", "Shirt"),
        miss("Shirt", 4, "Dress", "Dress", gave=3),
        miss("Shirt", 3, "Dress", "Bag"),
        miss("Bag", 4, "Shirt", "Bag"),
        miss("Bag", 2, "Shirt", "Shirt"),
    ]
    twins = [twin(0, "Bag", "Bag", 0.005), twin(1, "Bag", "Coat", 0.035), twin(2, "Bag", "Coat", 0.015, "train")]
    tables = mistake_tables(misses, twins)
    assert cells(tables["missed"]) == [
        ["none", "9,995", "99.95 %", "", "", ""],
        ["some, at most half", "1", "0.01 %", "1", "0", "1"],
        ["more than half", "1", "0.01 %", "1", "0", "0"],
        ["all 4", "3", "0.03 %", "2", "2", "1"],
    ]
    by_class = cells(tables["missed classes"])
    assert by_class[:2] == [["Shirt", "99.72 %", "3", "2", "Coat 1, Dress 1"], ["Bag", "99.85 %", "2", "1", "Shirt 1"]]
    assert len(by_class) == 10
    assert cells(tables["twins"])[::3] == [["0.01", "1", "0", "0", "0"], ["0.04", "2", "1", "1", "1"]]
    assert set(mistake_tables([], []).values()) == {"not measured yet"}


# The pages.


def test_tables_go_between_their_markers_and_nothing_else_changes() -> None:
    text = (
        "a\n<!-- recipes -->old\n<!-- /recipes -->\nb <!-- note --> c\n"
        "<!-- ablations quick -->\n<!-- /ablations quick -->"
    )
    tables = {"recipes": r"| \1 |", "ablations quick": "| 2 |", "recipes short": "| 3 |"}
    once = filled(text, tables)
    assert once == (
        "a\n<!-- recipes -->\n\n| \\1 |\n\n<!-- /recipes -->\nb <!-- note --> c\n"
        "<!-- ablations quick -->\n\n| 2 |\n\n<!-- /ablations quick -->"
    )
    assert filled(once, tables) == once
    assert filled("no table", tables) == "no table"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- recipes -->", "<!-- recipes --> has no <!-- /recipes -->"),
        ("<!-- recipes --><!-- recipes short --><!-- /recipes short --><!-- /recipes -->", "recipes --> has no"),
        ("<!-- recipes --><!-- /recipes --><!-- recipes -->", "recipes --> has no"),
        ("<!-- ablations quik --><!-- /ablations quik -->", "no such table; did you mean ablations quick"),
    ],
)
def test_markers_that_can_not_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filled(text, {"recipes": "", "recipes short": "", "ablations quick": ""})


def test_the_pages_of_the_project_show_the_rows_that_it_has() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("results")
    docs = CONF.parent / cfg.docs
    results = result_tables(read_catalogue(plain_config(cfg)["catalogue"]), read_rows(Row, docs / "results.csv"))
    tables = results | mistake_tables(read_rows(Miss, docs / "missed.csv"), read_rows(Twin, docs / "twins.csv"))
    texts = [(CONF.parent / page).read_text() for page in cfg.pages]
    assert [filled(text, tables) for text in texts] == texts, "make results ARGS=what=tables writes them"
    assert [name for name in tables if f"<!-- {name} -->" not in "".join(texts)] == []


# The rows.


def test_rows_are_written_with_fixed_decimals_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    rows = [replace(ROW, seconds=1.23456, loss=math.nan), replace(ROW, seed=1, variant="flip", version="")]
    write_rows(Row, file, rows)
    heading, first, second = file.read_text().splitlines()
    assert heading.startswith("recipe,variant,seed,split,views,")
    assert first == (
        'quick,,0,test,none,1,12345,3,1.2346,12.0000,0.9200,nan,bf16-mixed,"AMD EPYC, 2 cores",2026-11-23,57709d7b9'
    )
    assert second.endswith("2026-11-23,")
    read = read_rows(Row, file)
    assert as_csv(Row, read) == file.read_text()
    assert read[1] == rows[1]
    assert [type(value) for value in (read[0].seed, read[0].seconds)] == [int, float]
    assert read_rows(Row, tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its columns should be recipe,"),
        ("a,b\n", "its columns should be recipe,"),
        (as_csv(Row, []) + "quick,,x", "results.csv, line 2: "),
        (
            as_csv(Row, [ROW]) + as_csv(Row, [replace(ROW, seed=1)]).splitlines()[1].replace("30.000", "long"),
            "line 3: .*long",
        ),
    ],
)
def test_a_file_that_holds_something_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(Row, tmp_path / "results.csv")


def test_a_training_has_one_row_of_each_machine() -> None:
    rows = [ROW, replace(ROW, seed=1)]
    again, elsewhere = replace(ROW, accuracy=0.93), replace(ROW, machine=ELSEWHERE)
    assert put(rows, again) == [again, rows[1]]
    assert put(rows, elsewhere) == [*rows, elsewhere]


# The trainings.


def test_trainings_of_recipes_and_of_ablations() -> None:
    recipes = {"quick": QUICK, "other": Recipe("gpu", words=["model=mlp"], seeds=1)}
    tasks = recipe_tasks(recipes, None)
    assert [(task.recipe, task.seed, task.split, task.hardware) for task in tasks] == [
        ("quick", 0, "test", "cpu"),
        ("quick", 1, "test", "cpu"),
        ("other", 0, "test", "gpu"),
    ]
    assert [task.words for task in tasks[1:]] == [["experiment=quick", "seed=1"], ["model=mlp", "seed=0"]]
    assert len(recipe_tasks(recipes, 3)) == 6
    tasks = ablation_tasks(recipes, 2, 100)
    names = [(task.variant, task.seed) for task in tasks]
    assert names == [("", 0), ("flip", 0), ("smooth_loss", 0), ("", 1), ("flip", 1), ("smooth_loss", 1)]
    assert [task.name for task in tasks[:2]] == ["val_seed_0", "val_flip_seed_0"]
    assert tasks[4].title == "quick, flip, seed 1"
    assert tasks[4].words[:3] == ["experiment=quick", "augment=none", "data.val_size=100"]
    assert tasks[4].words[-2:] == ["test=false", "seed=1"]


def test_what_has_a_row_of_this_machine_is_left_alone() -> None:
    tasks = [*recipe_tasks({"quick": QUICK}, 2), *ablation_tasks({"quick": QUICK}, 1, 100)]
    rows = [ROW, replace(ROW, seed=1, machine=ELSEWHERE), replace(ROW, variant="flip", split="val")]
    found = [(task.variant, task.seed, task.split) for task in left(tasks, rows, {"cpu": ROW.machine})]
    assert found == [("", 1, "test"), ("", 0, "val"), ("smooth_loss", 0, "val")]


def test_a_catalogue_is_checked() -> None:
    catalogue = read_catalogue({"a": {"hardware": "gpu"}, "b": {}})
    assert list(choose(catalogue, None)) == ["a", "b"]
    assert list(choose(catalogue, ["b"])) == ["b"]
    assert catalogue["a"].hardware == "gpu"
    for entries, message in [
        ({"a": {"hardware": "tpu"}}, "catalogue.a.hardware=tpu: it should be 'cpu' or 'gpu'"),
        ({"a": {"seed": 1}}, "catalogue.a.seed: there is no such argument; did you mean seeds"),
        ({"a": {"variants": {"b": "c"}}}, "catalogue.a.variants="),
        ({"a": {"variants": {"b/c": ["d"]}}}, "catalogue.a: 'b/c' should be of letters"),
        ({"a b": {}}, "'a b' should be of letters"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_catalogue(entries)


def test_what_was_told_of_a_network_goes_when_it_is_trained_anew() -> None:
    flipped, together = replace(ROW, views="flip"), replace(ROW, runs=3)
    elsewhere, other = replace(flipped, machine=ELSEWHERE), replace(flipped, recipe="other")
    rows = [ROW, flipped, together, elsewhere, other]
    again = replace(ROW, accuracy=0.93)
    assert put(rows, again) == [again, elsewhere, other]
    validated = replace(ROW, split="val")
    assert put(rows, validated) == [*rows, validated]


# The machine and the unit.


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (
            "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\ncpu family\t: 9\nmodel name\t: other\n",
            "AMD EPYC (family 25, model 17)",
        ),
        (
            "cpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n",
            "Intel(R) Xeon(R) CPU @ 2.20GHz (family 6, model 85)",
        ),
        ("model name\t: Neoverse\n", "Neoverse"),
        ("processor\t: 0\n", platform.processor()),
        (None, platform.processor()),
    ],
)
def test_processors_of_one_name_are_told_apart(told: str | None, name: str, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    if told is not None:
        file.write_text(told)
    assert record.cpu_name(file) == name


def test_a_tutorial_epoch_is_told_from_some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loop(*arguments: object) -> tuple[int, float]:
        asked.append(arguments[-2:])
        return (15_000, 2.5)

    monkeypatch.setattr(tutorial, "usual_loop", loop)
    parts = (nn.Identity(), nn.Identity(), torch.optim.SGD, [])
    assert tutorial.tutorial_epoch_seconds(*parts, 200, 20) == 10.0
    assert asked == [(20, "cpu"), (200, "cpu")]


# The whole.

Measure = Callable[..., Done]


@pytest.fixture
def measure(run_script: RunScript, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Runs scripts/results.py with a tiny recipe `quick` on the made-up images."""
    monkeypatch.setattr(record, "cpu_name", lambda: "AMD EPYC")
    (tmp_path / "page.md").write_text(
        "mine\n<!-- recipes -->\n<!-- /recipes -->\n<!-- ablations quick -->\n<!-- /ablations quick -->\n"
    )
    words = ["data=folder", "data.val_size=0", "data.batch_size=50", "model.channels=[4]", "pictures=none"]
    quoted = ",".join(f"'{word}'" for word in [*words, "report=false", "trainer.max_epochs=1"])
    small = [
        f"+catalogue.quick={{seeds: 2, ablation_seeds: 1, words: [{quoted}], variants: {{flip: ['augment=none']}}}}",
        f"data_root={data_root}",
        *(
            "recipes=[quick]",
            "docs=.",
            "mistakes_of=[quick]",
            "pages=[page.md]",
            "unit_steps=2",
            "unit_warm_up=1",
            "val_size=100",
        ),
    ]

    def run(*arguments: str) -> Done:
        keys = {argument.split("=")[0] for argument in arguments}
        return run_script("results", *(word for word in small if word.split("=")[0] not in keys), *arguments)

    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Trainings leave their folders at once; their words."""
    composed(())  # which can't be while a script runs
    commands: list[list[str]] = []
    units = iter(range(10, 100, 2))

    def train(command: Sequence[str]) -> None:
        words = dict(word.split("=", 1) for word in command[2:])
        commands.append(command[2:])
        folder = Path(words["outputs"].strip('"'), words["name"].strip('"'), f"run_{len(commands)}")
        seed = int(words["seed"])
        score = 0.9 + 0.01 * seed - 0.02 * ("augment" in words)
        run = Run(write_run(folder, accuracy=score, test=score, seed=seed, precision="32-true"))
        run.save_metrics({**run.load_metrics(), "test/loss": None})

    monkeypatch.setattr(results_runs, "run_process", train)
    monkeypatch.setattr(results_runs, "unit_seconds", lambda *_: float(next(units)))
    return commands


@pytest.mark.slow
def test_a_real_training_becomes_a_row(measure: Measure) -> None:
    done = measure("seeds=1")
    assert done.status == 0, done.err
    (row,) = read_rows(Row, done.folder / "results.csv")
    (folder,) = done.folder.glob("outputs/results/quick/test_seed_0/*")
    metrics = Run(folder).load_metrics()
    assert (row.recipe, row.variant, row.seed, row.split) == ("quick", "", 0, "test")
    assert (row.parameters, row.epochs) == (metrics["parameters"], 1)
    assert (row.seconds, row.accuracy) == (metrics["train/seconds"], round(metrics["test/accuracy"], 4))
    assert row.loss == round(metrics["test/loss"], 4)
    assert row.tutorial_epoch_seconds > row.seconds > 0  # 60,000 images and fifty filters against 600 and four
    assert row.machine == f"AMD EPYC, {os.cpu_count()} cores"
    page = (done.folder / "page.md").read_text()
    assert page.startswith("mine\n")
    assert f"| {100 * row.accuracy:.2f} % (1 seed) |" in page


def test_what_was_cut_off_goes_on_with_the_seeds_that_are_left(
    measure: Measure, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = results_runs.run_process

    def interrupted(command: Sequence[str]) -> None:
        if "seed=1" in command:
            raise KeyboardInterrupt
        train(command)

    monkeypatch.setattr(results_runs, "run_process", interrupted)
    done = measure()
    assert done.status == 130
    assert [row.seed for row in read_rows(Row, done.folder / "results.csv")] == [0]
    assert "| 90.00 % (1 seed) |" in (done.folder / "page.md").read_text()
    monkeypatch.setattr(results_runs, "run_process", train)
    done = measure()
    assert done.status == 0, done.err
    assert ["seed=0" in words for words in trained] == [True, False]
    rows = read_rows(Row, done.folder / "results.csv")
    # Units are 10, then 12 after the first training; 14 after the one that never was, or rather before the next; 16.
    assert [(row.accuracy, row.seconds, row.tutorial_epoch_seconds) for row in rows] == [(0.9, 10, 11), (0.91, 10, 15)]
    assert math.isnan(rows[0].loss)
    assert "| 90.50 % ± 0.71 (2 seeds) |" in (done.folder / "page.md").read_text()
    done = measure()
    assert "nothing is left to be measured" in done.out
    assert len(trained) == 2
    assert measure("again=true", "seeds=1").status == 0
    assert len(trained) == 3
    assert [row.tutorial_epoch_seconds for row in read_rows(Row, done.folder / "results.csv")] == [19, 15]


@pytest.mark.usefixtures("trained")
def test_a_run_goes_when_the_row_of_a_later_one_is_there(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = measure("seeds=1").folder / "outputs/results/quick/test_seed_0"
    train = results_runs.run_process

    def cut_off(command: Sequence[str]) -> None:
        train(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(results_runs, "run_process", cut_off)
    assert measure("seeds=1", "again=true").status == 130
    assert [run.name for run in sorted(runs.iterdir())] == ["run_1", "run_2"]
    monkeypatch.setattr(results_runs, "run_process", train)
    assert measure("seeds=1", "again=true").status == 0
    assert [run.name for run in runs.iterdir()] == ["run_3"]


def test_ablations_see_no_test_image_and_no_choice_of_an_epoch(measure: Measure, trained: list[list[str]]) -> None:
    done = measure("what=ablations")
    assert done.status == 0, done.err
    rows = read_rows(Row, done.folder / "results.csv")
    assert [(row.variant, row.split, row.accuracy) for row in rows] == [("", "val", 0.9), ("flip", "val", 0.88)]
    assert "augment=none" in trained[1]
    for words in trained:
        assert {"data.val_size=100", "test=false", "trainer.accelerator=cpu"} < {*words}
    page = (done.folder / "page.md").read_text()
    assert "| flip | `augment=none` | 88.00 % (1 seed) | +2.00 |" in page
    assert "| `quick` | not measured yet |" in page


def test_only_the_last_epoch_of_an_ablation_is_validated(train: RunScript) -> None:
    (task,) = [task for task in ablation_tasks({"quick": QUICK}, 1, 100) if not task.variant]
    run = Run(train(*task.words[1:]).run)
    epochs = run.history_file.read_text().splitlines()
    place = epochs[0].split(",").index("val/accuracy")
    assert [bool(line.split(",")[place]) for line in epochs[1:]] == [True, False, True]
    metrics = run.load_metrics()
    assert metrics["checkpoint"] == "best.ckpt"
    assert f"{metrics['val/accuracy']:.4f}" == f"{float(epochs[-1].split(',')[place]):.4f}"
    assert "test/accuracy" not in metrics


@pytest.mark.slow
def test_the_networks_of_recipes_are_looked_at_again(measure: Measure) -> None:
    measure("what=mistakes").assert_refused("what=mistakes: none of quick has been measured on this machine")
    measure()
    done = measure("what=mistakes")
    assert done.status == 0, done.err
    rows = read_rows(Row, done.folder / "results.csv")
    assert [(row.views, row.runs, row.seed) for row in rows] == [
        *[("none", 1, 0), ("none", 1, 1), ("flip", 1, 0), ("flip", 1, 1), ("flip_shift", 1, 0), ("flip_shift", 1, 1)],
        *[("none", 2, 0), ("flip", 2, 0), ("flip_shift", 2, 0)],
    ]
    assert (rows[6].parameters, rows[6].seconds) == (
        2 * rows[0].parameters,
        pytest.approx(rows[0].seconds + rows[1].seconds),
    )
    misses = read_rows(Miss, done.folder / "missed.csv")
    wrong = sum(miss.missed for miss in misses)
    images = 100
    assert wrong / (2 * images) == pytest.approx(1 - (rows[0].accuracy + rows[1].accuracy) / 2, abs=1e-4)
    assert (done.folder / "missed.png").read_bytes()[:4] == b"\x89PNG"
    kept = (done.folder / "results.csv").read_text()
    assert measure("what=mistakes").status == 0
    assert (done.folder / "results.csv").read_text() == kept
    write_rows(Row, done.folder / "results.csv", [replace(rows[0], accuracy=0.0123), *rows[1:]])
    measure("what=mistakes").assert_refused("and 0.0123 in the results: train it anew")
    shutil.rmtree(done.folder / "outputs/results/quick/test_seed_1")
    measure("what=mistakes").assert_refused("test_seed_1: the run is gone")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_is_left_out_with_a_line(measure: Measure, trained: list[list[str]]) -> None:
    done = measure("+catalogue.quick.hardware=gpu")
    assert done.status == 0, done.err
    assert "quick is left out: it is trained on a GPU, and there is none" in done.out
    assert not trained
    assert "| `quick` | not measured yet |" in (done.folder / "page.md").read_text()


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (
            ["what=ablations", "catalogue.quick.variants={flip: ['augment=non']}"],
            ["catalogue.quick.variants.flip: ", "non"],
        ),
        (["catalogue.quick.words=['experiment=nope']"], ["catalogue.quick: ", "experiment/nope"]),
        (["catalogue.quick.words=['model.dropout=2']"], ["catalogue.quick: model.dropout=2", "less than 1"]),
        (["docs=none"], ["docs=none: there is no such folder"]),
        (["mistakes_of=[quik]"], ["quik: there is no such recipe; did you mean quick"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    words: list[str], fragments: list[str], measure: Measure, trained: list[list[str]]
) -> None:
    measure(*words).assert_refused(*fragments)
    assert not trained


@pytest.mark.usefixtures("trained")
def test_a_training_that_fails_is_one_line_and_what_was_measured_stays(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = results_runs.run_process

    def fail(command: Sequence[str]) -> None:
        if "seed=1" in command:
            raise ValueError("train.py failed: error: the loss isn't finite")
        train(command)

    monkeypatch.setattr(results_runs, "run_process", fail)
    done = measure()
    done.assert_refused("the loss isn't finite")
    assert len(read_rows(Row, done.folder / "results.csv")) == 1


def test_two_do_not_measure_at_once(measure: Measure, trained: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "outputs" / "results").mkdir(parents=True)
    with Run(tmp_path / "outputs" / "results").locked():
        measure().assert_refused("outputs/results: another process is")
    assert not trained


def test_a_version_is_of_the_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        person = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *person, *words], check=True, capture_output=True)

    (tmp_path / "code").write_text("1")
    (tmp_path / "page").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    (tmp_path / "page").write_text("2")
    assert [record.git_state(tmp_path, *parts)["clean"] for parts in ([":/code"], [":/page"], [])] == [
        True,
        False,
        False,
    ]
    state = {"commit": "0123456789abcdef", "clean": False}
    monkeypatch.setattr(record, "git_state", lambda *_: state)
    assert results_runs.code_version() == "012345678+"
    state["clean"] = True
    assert results_runs.code_version() == "012345678"
