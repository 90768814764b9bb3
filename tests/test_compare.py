"""scripts/compare.py: its output on the terminal, its CSV files and its page."""

import csv
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS, RunScript
from run_folders import write_run
from test_report import Node, Reader

from fmnist.compare import PAGE_FILE, read_runs, write_comparison
from fmnist.compare.ranking import compare
from fmnist.compare.reading import RunResult
from fmnist.compare.terminal import terminal_text
from fmnist.config.overrides import paths_as_value

ACCURACIES = {"sgd": (0.91, 0.92, 0.93), "adam": (0.922, 0.931, 0.933), "momentum": (0.80, 0.81, 0.83)}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A sweep of three optimizers and three seeds, and three runs that have not finished."""
    folder = tmp_path / "outputs"
    for optimizer, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            words = f"optimizer={optimizer}"
            path = folder / f"{words},seed={seed}"
            write_run(path, words, seed=seed, accuracy=accuracy, loss=1 - accuracy, test=accuracy - 0.01)
    write_run(folder / "9", "optimizer=sgd", "optimizer.lr=10", status="failed", error="the loss is <b>NaN</b>")
    write_run(folder / "10", status="running")
    write_run(folder / "11", status="pruned", accuracy=None)
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines, strict=True))


def page_of(file: Path) -> Node:
    return Reader(file.read_text(encoding="ascii")).path[0]


def test_one_folder_is_ranked_and_the_result_is_written_there(run_script: RunScript, outputs: Path) -> None:
    done = run_script("compare", "outputs")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "9 runs of 3 settings, 1 running, 1 failed, 1 pruned, by val/accuracy"
    ranking = lines[: lines.index("not ranked, as they have not finished:")]
    table = [re.split(r"  +", line.strip()) for line in ranking if re.match(r" +\d ", line)]
    assert table == [
        ["1", "adam", "3", "92.87 ± 0.59", "best", "91.87 ± 0.59"],
        ["2", "sgd", "3", "92.00 ± 1.00", "no significant difference", "91.00 ± 1.00"],
        ["3", "momentum", "3", "81.33 ± 1.53", "worse", "80.33 ± 1.53"],
    ]
    text = " ".join(done.out.split())
    assert "Welch's t-test over seeds (two-sided, Holm-corrected for 2 comparisons)" in text
    assert "Selection bias: the best of 3" in text
    assert re.search(r"^ 9 +failed +1 +the loss is <b>NaN</b>", done.out, re.MULTILINE)
    assert done.out.endswith("page: outputs/comparison.html\n")
    assert max(map(len, lines)) <= 80
    rows = {row["folder"]: row for row in rows_of(outputs / "runs.csv")}
    assert len(rows) == 12
    values = [rows["optimizer=sgd,seed=1"][key] for key in ("status", "rank", "seed", "val/accuracy")]
    assert values == ["finished", "2", "1", "0.92"]
    values = [rows["9"][key] for key in ("status", "error", "rank", "optimizer", "optimizer.lr", "epochs")]
    assert values == ["failed", "the loss is <b>NaN</b>", "", "sgd", "10", "1"]


def test_the_csv_of_the_settings(run_script: RunScript, outputs: Path) -> None:
    run_script("compare", "outputs", "metric=val/loss")
    best, second, worst = rows_of(outputs / "comparison.csv")
    assert [row["optimizer"] for row in (best, second, worst)] == ["adam", "sgd", "momentum"]
    assert (best["rank"], best["n"], best["verdict"], best["p"], best["difference"]) == ("1", "3", "best", "", "0.0")
    assert float(best["mean"]) == pytest.approx(1 - sum(ACCURACIES["adam"]) / 3, abs=1e-15)
    assert float(second["difference"]) == pytest.approx(float(second["mean"]) - float(best["mean"]), abs=1e-15)
    assert float(second["ci_low"]) < float(second["difference"]) < float(second["ci_high"])
    assert float(worst["p_holm"]) == pytest.approx(2 * float(worst["p"]))
    assert float(worst["test_mean"]) == pytest.approx(sum(ACCURACIES["momentum"]) / 3 - 0.01)
    assert (worst["verdict"], worst["seconds"], worst["seeds"]) == ("worse", "10.0", "0;1;2")
    assert worst["folders"] == ";".join(f"optimizer=momentum,seed={seed}" for seed in range(3))


def test_the_page_holds_ranking_charts_and_what_was_not_ranked(outputs: Path) -> None:
    (outputs / "optimizer=adam,seed=0" / "report.html").touch()
    write_comparison(outputs, read_runs([outputs]))
    page = page_of(outputs / PAGE_FILE)
    assert page.one("strong").text == "92.87 ± 0.59"
    ranking = page.one("section", id="ranking").one("tbody")
    cells = [[cell.text for cell in row.all("td")] for row in ranking.all("tr")]
    assert [row[1] for row in cells] == ["adam", "sgd", "momentum"]
    assert [row[7] for row in cells] == ["best", "no significant difference", "worse"]
    links = [(link.text, link.attributes["href"]) for link in ranking.all("a") if "href" in link.attributes]
    assert links == [("0", "./optimizer%3Dadam%2Cseed%3D0/report.html")]
    chart = page.one("section", id="settings").one("svg")
    assert {"optimizer", "adam", "momentum", "sgd", "val/accuracy (%)"} <= {node.text for node in chart.all("text")}
    unranked = page.one("section", id="unranked").one("tbody")
    assert [row.one("th").text for row in unranked.all("tr")] == ["9", "10", "11"]
    assert "the loss is <b>NaN</b>" in unranked.text
    assert "default-src 'none'" in page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]


def test_several_folders_are_compared_in_a_new_one(run_script: RunScript, tmp_path: Path) -> None:
    for name, accuracy in (("a", 0.9), ("b", 0.91)):
        write_run(tmp_path / name / "0", f"model.dropout={accuracy}", accuracy=accuracy)
    before = sorted((tmp_path / "a" / "0").iterdir())
    done = run_script("compare", "a", "b/0")
    (page,) = (tmp_path / "outputs" / "compare").glob("*/comparison.html")
    assert f"page: {page}" in done.out
    assert [row["folders"] for row in rows_of(page.parent / "comparison.csv")] == ["../../../b/0", "../../../a/0"]
    assert "1 run of 1 setting, by val/accuracy" in run_script("compare", "a/0", "output=x/y").out
    assert rows_of(tmp_path / "x" / "y" / "runs.csv")[0]["folder"] == "../../a/0"
    run_script("compare", "a/0", "outputs=elsewhere")
    assert len(list((tmp_path / "elsewhere" / "compare").iterdir())) == 1
    assert sorted((tmp_path / "a" / "0").iterdir()) == before


def test_a_sweep_of_comparisons_keeps_them_apart(run_script: RunScript, outputs: Path) -> None:
    done = run_script("compare", "-m", "outputs", "metric=val/loss,val/accuracy")
    assert done.status == 0, done.err
    pages = sorted(outputs.glob("compare/*/*/comparison.html"))
    assert [page.parent.name for page in pages] == ["metric=val-accuracy", "metric=val-loss"]
    assert "val/loss" in page_of(pages[1]).text
    assert not (outputs / PAGE_FILE).exists()


def test_where_nothing_can_be_ranked(run_script: RunScript, tmp_path: Path) -> None:
    write_run(tmp_path / "failed" / "0", status="failed", error="out of memory")
    done = run_script("compare", "failed", "metric=val/loss")
    assert done.out.startswith("0 runs of 0 settings, 1 failed, by val/loss\nnot ranked")
    assert "out of memory" in page_of(tmp_path / "failed" / PAGE_FILE).text
    table = tmp_path / "failed" / "comparison.csv"
    assert table.read_text().startswith("rank,n,mean,std,difference,")
    assert rows_of(table) == []
    folder = tmp_path / "unvalidated"
    for model in ("mlp", "cnn"):
        (write_run(folder / model, f"model={model}") / "metrics.json").write_text('{"test/accuracy": 0.9}')
    done = run_script("compare", "unvalidated")
    assert done.out.startswith("2 runs of 2 settings, by val/accuracy\n")
    assert "90.00" in done.out
    assert "No run has finished with a value of val/accuracy." in page_of(folder / PAGE_FILE).text
    assert {row["rank"] for row in rows_of(folder / "comparison.csv")} == {""}
    run_script("compare", "unvalidated", "metric=val/loss").assert_refused("metric=val/loss", "no finished run has it")


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["metric=val/loss"], ["name the folders of runs"]),
        (["nowhere"], ["nowhere", "no such folder"]),
        (["empty"], ["empty", "there are no runs"]),
        (["outputs", "metric=val/acuracy"], ["metric=val/acuracy", "did you mean val/accuracy"]),
        (["outputs", "metric=test/accuracy"], ["metric=test/accuracy", "not for choosing"]),
        (["outputs", "metric=1"], ["metric=1", "string"]),
        (["outputs", "metrc=val/loss"], ["metrc", "did you mean metric"]),
        (["outputs", "runs=[outputs]"], ["runs=...", "not both"]),
        (["outputs", "output=outputs/9/run.json"], ["outputs/9/run.json", "exists"]),
    ],
)
@pytest.mark.usefixtures("outputs")
def test_invalid_input_is_refused_and_nothing_is_written(
    words: list[str], fragments: list[str], run_script: RunScript, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    run_script("compare", *words).assert_refused(*fragments)
    assert sorted(tmp_path.rglob("*")) == before


def test_arguments_are_folders_of_any_name_unless_they_are_overrides(run_script: RunScript, tmp_path: Path) -> None:
    names = ["optimizer=sgd,seed=0", "metric=x", "a b", "ü(1)", 'q"uote', "back\\", "${x}", "o'clock", 'x\\"y', "null"]
    for name in names:
        write_run(tmp_path / name / "0")
    done = run_script("compare", "metric=val/loss", *names, "+output=here")
    assert done.status == 0, done.err
    assert "by val/loss" in done.out
    assert f"only the newest counts: {len(names) - 1} left out." in " ".join(done.out.split())
    words = ["-m", "metric=val/loss", "+new=1", "~output", "--config-dir", "somewhere"]
    assert paths_as_value("runs", [*words[:2], "a b", *words[2:]])[:-1] == words
    assert paths_as_value("runs", ["metric=val/loss"]) == ["metric=val/loss"]


def test_markup_in_names_and_settings_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>[red]$\\frac{1$"
    for name, value in (("a", evil), ("b", "$x$"), ("c", "\x1b[31m")):
        folder = write_run(tmp_path / f"{name}<img src=x>")
        record = json.loads((folder / "run.json").read_text())
        record["settings"] |= {"model.activation": value, "model": "x", "n": value, "setting": value}
        (folder / "run.json").write_text(json.dumps(record))
    write_run(tmp_path / "d", status="failed", error=f"{evil}\x1b[31m")
    text = write_comparison(tmp_path, read_runs([tmp_path]))
    assert "<script>alert(1)</script>[red]" in " ".join(text.split())
    assert "\x1b" not in text
    page = page_of(tmp_path / PAGE_FILE)
    assert page.all("script") == page.all("img") == page.all("b") == []
    assert "<script>alert(1)</script>[red]" in page.text
    assert {"$x$", "<script>alert(1)<…"} <= {node.text for node in page.all("text")}


def test_the_ranking_fits_terminals_of_any_width(tmp_path: Path) -> None:
    draw = random.Random(0)
    keys = ["optimizer.lr", "model.dropout", "data.batch_size", "trainer.accumulate_grad_batches", "data.val_size"]
    keys += ["data.split_seed", "trainer.check_val_every_n_epoch", "trainer.max_epochs"]
    runs = []
    for i in range(33):
        settings = {key: str(draw.uniform(0, 1) if key == keys[0] else i % 3 + 1) for key in keys}
        metrics = {"val/accuracy": draw.random(), "test/accuracy": 0.5}
        runs.append(RunResult(tmp_path / str(i), "finished", settings, seed="0", metrics=metrics))
    comparison = compare([*runs, RunResult(tmp_path / "x", "failed", error="e" * 300)])
    for width in (80, 100, 200):
        text = terminal_text(comparison, width, tmp_path)
        assert max(map(len, text.splitlines())) <= width
        assert "... 3 more in comparison.csv" in text
        assert "95% CI" not in text  # with one seed there is none
        assert "unknown: not tested" in text
    assert "trainer.accumulate_grad_batches=3" in terminal_text(comparison, 80, tmp_path)
    assert "accumulate_grad_batches=3" not in text


def test_compare_starts_without_torch(outputs: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(SCRIPTS / "compare.py"), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert {"pandas", "fmnist.compare.ranking"} <= imported
    assert not imported & {"torch", "torchvision", "lightning", "torchmetrics", "tensorboard"}
    assert (outputs / PAGE_FILE).is_file()


def test_many_runs(tmp_path: Path) -> None:
    runs = [
        RunResult(tmp_path / str(i), "finished", {"optimizer.lr": f"{i}.5"}, metrics={"val/accuracy": i / 1000})
        for i in range(550)
    ]
    text = write_comparison(tmp_path, runs)
    assert text.startswith("550 runs of 550 settings, by val/accuracy\n")
    assert "... 520 more in comparison.csv" in text
    assert [row["optimizer.lr"] for row in rows_of(tmp_path / "comparison.csv")] == [f"{549 - i}.5" for i in range(550)]
    page = page_of(tmp_path / PAGE_FILE)
    assert len(page.one("section", id="ranking").all("tr")) == 501
    assert "50 more in comparison.csv" in page.text
