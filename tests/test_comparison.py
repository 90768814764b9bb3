"""Run folders are read, their settings told apart and ranked."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from fmnist.compare.ranking import Comparison, compare, differing_settings
from fmnist.compare.reading import RunResult, find_runs, read_run, read_runs


def result(accuracy: float | None, seed: int = 0, lr: float = 0.1, **fields: Any) -> RunResult:
    """Return a finished run whose settings are `lr` and `monitor`."""
    metrics = {} if accuracy is None else {"val/accuracy": accuracy}
    settings = {"lr": str(lr), "monitor": fields.pop("monitor", "val/accuracy")}
    fields = {"status": "finished", "metrics": metrics, **fields}
    return RunResult(folder=Path("somewhere") / str(seed), settings=settings, seed=str(seed), **fields)


def verdicts(comparison: Comparison) -> dict[str, str]:
    return dict(zip(comparison.settings["lr"], comparison.scores["verdict"], strict=True))


# Reading


def test_runs_are_found_once_in_natural_order_and_none_inside_a_run(tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/2", "single", "single/checkpoints/inner", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ("config.yaml" if name == "sweep/10" else "run.json")).touch()
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "sweep" / "2")
    found = [str(folder.relative_to(tmp_path)) for folder in find_runs([tmp_path / "sweep" / "10", tmp_path])]
    assert found == ["sweep/10", "again", "single"]
    assert list(find_runs([tmp_path / "again"])) == [tmp_path / "again"]


@pytest.mark.parametrize("settings", [True, False], ids=["settings in run.json", "only config.yaml"])
def test_a_run_is_read_as_it_was_written(tmp_path: Path, settings: bool) -> None:
    folder = write_run(tmp_path / "a", "optimizer=sgd", accuracy=0.91, loss=math.inf, seed=7, settings=settings)
    if settings:
        (folder / "config.yaml").unlink()
    run = read_run(folder)
    assert (run.status, run.seed, run.epochs, run.error) == ("finished", "7", 1, "")
    assert run.choices["optimizer"] == "sgd"
    assert (run.metrics["val/accuracy_per_class/T-shirt/top"], run.metrics["train/seconds"]) == (0.91, 10)
    assert math.isnan(run.metrics["val/loss"])
    assert "checkpoint" not in run.metrics
    assert run.settings["optimizer.momentum"] == "0.9"
    assert run.settings["model.channels"] == "[32, [32, 64], 128]"
    assert "seed" not in run.settings


def test_a_failed_run_needs_neither_config_nor_metrics(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": "failed", "error": "out of\nmemory"}))
    run = read_run(tmp_path)
    assert (run.status, run.error, run.settings, run.epochs) == ("failed", "out of memory", {}, 0)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("config.yaml", None, "no config.yaml"),
        ("config.yaml", "a: [1\nb: 2\n", "config.yaml can't be read: while parsing"),
        ("config.yaml", "a: &a [*a]\n", "config.yaml can't be read: *a is a reference"),
        ("config.yaml", "a: 2026-99-99\n", "config.yaml can't be read"),
        ("config.yaml", "? [1]\n: 2\n", "config.yaml can't be read"),
        ("config.yaml", "a: [{2026-11-22: 1}]\n", "keys must be str"),
        ("config.yaml", b"name: \xff\n", "can't be read"),
        ("run.json", None, "run.json has no status"),
        ("run.json", '{"status": "fini', "run.json can't be read"),
        ("run.json", '{"status": "done"}', "its status is 'done'"),
        ("run.json", '{"status": "finished", "settings": [1]}', "run.json can't be read: it is not a mapping"),
        ("run.json", f'{{"status": "finished", "settings": {{"a": {"[" * 99}{"]" * 99}}}}}', "nested too deeply"),
        ("run.json", f'{{"status": "{"x" * 2**20}"}}', "run.json is larger than 1,048,576 bytes"),
        ("metrics.json", None, "no metrics.json"),
        ("metrics.json", '{"val/accuracy": "high"}', "val/accuracy is not a number: 'high'"),
        ("metrics.json", '{"val/accuracy": true}', "val/accuracy is not a number: 'True'"),
        ("metrics.json", '{"val/accuracy_per_class": {"Bag": [1]}}', "val/accuracy_per_class/Bag is not a number"),
    ],
)
def test_a_damaged_run_is_left_out_with_the_reason_in_one_line(
    file: str, text: str | bytes | None, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad", settings=False) / file
    bad.unlink()
    if text is not None:
        bad.write_bytes(text.encode() if isinstance(text, str) else text)
    with caplog.at_level(logging.WARNING):
        assert [run.folder.name for run in read_runs([tmp_path])] == ["good"]
    (warning,) = caplog.messages
    assert warning.startswith(f"left out: {tmp_path / 'bad'} (")
    assert reason in warning
    assert "\n" not in warning


def test_the_first_of_many_damaged_runs_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in range(7):
        (tmp_path / f"bad{name}").mkdir()
        (tmp_path / f"bad{name}" / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"no run can be read: .*run\.json can't be read"):
        read_runs([tmp_path])
    write_run(tmp_path / "good")
    read_runs([tmp_path])
    assert caplog.text.count("can't be read") == 3
    assert caplog.messages[0].endswith(" and 4 more")


# Settings


def columns(tmp_path: Path, *runs: tuple[str, ...], **fields: Any) -> dict[str, list[Any]]:
    """Return the settings that differ between runs with these overrides."""
    read = [read_run(write_run(tmp_path / str(i), *overrides, **fields)) for i, overrides in enumerate(runs)]
    found = differing_settings(read)
    return {key: [value if isinstance(value, str) else None for value in found[key]] for key in found}


@pytest.mark.parametrize(
    ("affects", "overrides"),
    [
        (False, "name=other compile=true stop_on_nan=false pictures=all data.eval_batch_size=10 data.root=elsewhere"),
        (False, "trainer=ddp_cpu trainer.profiler=simple"),
        (False, "model.dropout=0.05"),  # the default
        (True, "monitor=val/loss"),  # chooses another checkpoint
        (True, "trainer.precision=32-true"),
        (True, "trainer.limit_train_batches=1"),  # one batch; 1.0 is all of them
        (True, "data.batch_size=64"),
        (True, "augment=none"),
        (True, "callbacks=early_stopping"),
    ],
)
def test_a_setting_is_what_affects_the_result(affects: bool, overrides: str, tmp_path: Path) -> None:
    assert bool(columns(tmp_path, (), tuple(overrides.split()))) == affects


def test_equal_settings_of_earlier_versions_and_other_data(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / "new", "model.dropout=0.0"))]
    runs += [read_run(write_run(tmp_path / "old", "model.dropout=0", settings=False))]
    assert runs[0].settings == runs[1].settings
    runs += [read_run(write_run(tmp_path / "bool", "model.dropout=false", dataset={"train-images": "0ff"}))]
    assert list(differing_settings(runs)) == ["model.dropout", "dataset"]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["optimizer=sgd", "optimizer=adam"], {"optimizer": ["sgd", "adam"]}),
        (
            ["optimizer=sgd", "optimizer=adam", "optimizer=adam optimizer.lr=0.002"],
            {"optimizer": ["sgd", "adam", "adam"], "optimizer.lr": ["0.1", "0.001", "0.002"]},
        ),
        (["model.channels=[4]", "model.channels=[8,8]"], {"model.channels": ["[4]", "[8, 8]"]}),
        (["loss=cross_entropy_smoothed", "loss=cross_entropy loss.label_smoothing=0.1"], {}),
        (
            ["trainer=cpu trainer.max_epochs=2", "trainer=default", "data=idx data.batch_size=9"],
            {"data": ["fashion_mnist", "fashion_mnist", "idx"], "trainer.max_epochs": ["2", "8", "8"]},
        ),
    ],
)
def test_columns_are_the_settings_that_differ(tmp_path: Path, runs: list[str], expected: dict[str, Any]) -> None:
    assert columns(tmp_path, *(tuple(run.split()) for run in runs)) == expected


@pytest.mark.parametrize("choices", [True, False])
def test_runs_can_always_be_told_apart_by_their_columns(tmp_path: Path, choices: bool) -> None:
    runs = [("optimizer=sgd",), ("optimizer=sgd", "optimizer.lr=1"), ("optimizer=adam",), ("model=mlp",)]
    runs += [("model=mlp", "model.hidden=[]"), ("augment=none", "optimizer=adam"), ("scheduler=cosine",), ()]
    found = columns(tmp_path, *runs, choices=choices)
    assert len(set(zip(*found.values(), strict=True))) == len(runs)


# Ranking


def test_seeds_are_one_row_with_mean_and_standard_deviation() -> None:
    runs = [result(0.90, 0), result(0.92, 1), *(result(0.93 + seed / 100, seed, lr=0.2) for seed in (1, 2))]
    found = compare(runs)
    assert found.settings.to_dict("list") == {"lr": ["0.2", "0.1"]}
    best, other = found.scores.to_dict("records")
    assert (best["rank"], best["n"], best["mean"]) == (1, 2, pytest.approx(0.945))
    assert (other["rank"], other["n"], other["mean"]) == (2, 2, pytest.approx(0.91))
    assert other["std"] == pytest.approx(0.02 / math.sqrt(2))
    assert other["difference"] == pytest.approx(-0.035)


def test_the_newest_run_of_a_seed_counts() -> None:
    ends = ["2026-11-22T10:00:00+02:00", "2026-11-22T09:00:00+00:00", "2025-11-22T10:00:00+00:00"]  # 8 and 9 o'clock
    runs = [result(accuracy, 0, ended=end) for accuracy, end in zip((0.5, 0.9, 0.6), ends, strict=True)]
    found = compare([*runs, result(0.4, 0, ended="yesterday"), result(0.8, 1)])
    assert [run.metrics["val/accuracy"] for run in found.runs[0]] == [0.9, 0.8]
    assert any("only the newest counts: 3 left out" in note for note in found.notes)


def test_a_setting_without_a_value_is_last_and_has_no_rank() -> None:
    runs = [result(math.nan, lr=1), result(None, lr=2), result(0.9, lr=3), result(math.nan, 1, lr=3)]
    assert verdicts(compare(runs)) == {"1": "unknown", "2": "unknown", "3": "unknown"}
    found = compare([*runs, result(0.1, lr=4)])
    assert found.settings["lr"].tolist() == ["4", "3", "1", "2"]
    assert found.scores["rank"].isna().tolist() == [False, True, True, True]


def test_verdicts() -> None:
    groups = {1: (0.95, 0.951, 0.949), 2: (0.949, 0.95, 0.95), 3: (0.7, 0.71, 0.72), 4: (0.9,)}
    found = compare([result(value, seed, lr) for lr, group in groups.items() for seed, value in enumerate(group)])
    assert verdicts(found) == {"1": "best", "2": "no significant difference", "3": "worse", "4": "unknown"}
    ties = compare([result(value, seed, lr) for lr, value in ((1, 0.9), (2, 0.1)) for seed in (0, 1, 2)])
    assert verdicts(ties) == {"1": "best", "2": "unknown"}
    assert math.isnan(ties.scores["p"][1])


def test_a_difference_that_is_significant_alone_may_not_be_among_many() -> None:
    pair = [result(value, seed, lr=1) for seed, value in enumerate((0.90, 0.91, 0.92))]
    pair += [result(value, seed, lr=2) for seed, value in enumerate((0.875, 0.88, 0.885))]
    assert verdicts(compare(pair)) == {"1": "best", "2": "worse"}
    others = [result(value, s, lr=lr) for lr in range(3, 13) for s, value in enumerate((0.88, 0.90, 0.92))]
    found = compare([*pair, *others])
    assert verdicts(found)["2"] == "no significant difference"
    row = found.scores[found.settings["lr"] == "2"].iloc[0]
    assert row["p"] < 0.05 < row["p_holm"]


def test_the_metric_is_the_one_that_the_runs_monitored() -> None:
    losses = [result(0.9, seed, monitor="val/loss", metrics={"val/loss": 0.1}) for seed in (0, 1)]
    assert compare(losses).metric == "val/loss"
    mixed = compare([*losses, result(0.9, 2)])
    assert mixed.metric == "val/accuracy"
    assert any("did not monitor one validation metric" in note for note in mixed.notes)


def test_the_test_accuracy_is_shown_and_never_ranked_by() -> None:
    runs = [result(None, 0, lr=1, metrics={"val/accuracy": 0.9, "test/accuracy": 0.5}), result(0.8, 0, lr=2)]
    runs += [result(None, s, lr=2, metrics={"val/accuracy": 0.8, "test/accuracy": 0.7 + s / 10}) for s in (1, 2)]
    scores = compare(runs).scores
    assert scores["test_n"].tolist() == [1, 2]
    assert scores["test_mean"].tolist() == pytest.approx([0.5, 0.85])
