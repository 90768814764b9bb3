"""Run folders read, settings told apart, and rows ranked: by value."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from run_folders import composed, write_history, write_run

from fmnist.compare.ranking import Comparison, compare
from fmnist.compare.reading import RunResult, find_runs, natural, read_run, read_runs
from fmnist.compare.settings import columns, identity, read_config, settings_of


def ranked(*runs: RunResult, metric: str | None = None) -> Comparison:
    return compare(runs, metric)


def result(accuracy: float | None, seed: int = 0, **fields: Any) -> RunResult:
    """A finished run with one setting, `lr`, unless others are given."""
    settings = fields.pop("settings", {"lr": fields.pop("lr", 0.1)})
    metrics = {} if accuracy is None else {"val/accuracy": accuracy}
    fields = {"status": "finished", "monitor": "val/accuracy", "metrics": metrics, **fields}
    return RunResult(folder=Path("somewhere") / str(seed), settings=settings, seed=seed, **fields)


# Reading


def test_runs_are_found_once_in_natural_order_and_none_inside_a_run(tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/2", "single", "single/checkpoints/inner"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("sweep/10/config.yaml", "sweep/2/run.json", "single/run.json", "single/checkpoints/inner/run.json"):
        (tmp_path / name).touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "config.yaml").touch()
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "single")
    found = [str(folder.relative_to(tmp_path)) for folder in find_runs([tmp_path / "sweep" / "10", tmp_path])]
    assert found == ["sweep/10", "single", "sweep/2"]
    assert list(find_runs([tmp_path / "again"])) == [tmp_path / "again"]


def test_natural_order() -> None:
    names = ["10", "9", "2026-11-22_10-00-00_2", "2026-11-22_10-00-00", "b10", "b9"]
    assert sorted(names, key=natural) == ["9", "10", "2026-11-22_10-00-00", "2026-11-22_10-00-00_2", "b9", "b10"]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", "optimizer=sgd", accuracy=0.91, loss=None, test=0.9, seed=7))
    assert (run.status, run.seed, run.monitor, run.epochs, run.error) == ("finished", 7, "val/accuracy", 1, None)
    assert run.choices["optimizer"] == "sgd"
    assert list(run.overrides) == ["optimizer=sgd", "seed=7"]
    assert run.metrics["val/accuracy_per_class/T-shirt/top"] == 0.91
    assert math.isnan(run.metrics["val/loss"])
    assert run.settings["optimizer.momentum"] == 0.9
    assert run.settings["model.channels"] == (32, 64, 128)
    assert "checkpoint" not in run.metrics


def test_a_failed_run_needs_neither_config_nor_metrics(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": "failed", "error": "out of\nmemory"}))
    run = read_run(tmp_path)
    assert (run.status, run.error, run.settings, run.epochs) == ("failed", "out of memory", {}, 0)
    write_history(tmp_path, [0.1, 0.5, 0.6])
    assert read_run(tmp_path).epochs == 2


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("config.yaml", None, "no config.yaml"),
        ("config.yaml", "", "config.yaml can't be read: it doesn't hold names"),
        ("config.yaml", "- a\n- b\n", "config.yaml can't be read: it doesn't hold names"),
        ("config.yaml", "a: [1\nb: 2\n", "config.yaml can't be read: while parsing"),
        ("config.yaml", "a: &a [*a]\n", "config.yaml can't be read: *a is a reference"),
        ("config.yaml", b"name: \xff\n", "can't be read"),
        ("run.json", None, "run.json has no status"),
        ("run.json", '{"status": "fini', "run.json can't be read"),
        ("run.json", '{"status": "done"}', "its status is 'done'"),
        ("run.json", "[1]", "run.json is not a mapping"),
        ("metrics.json", None, "no metrics.json"),
        ("metrics.json", '{"val/acc', "metrics.json can't be read"),
        ("metrics.json", '{"val/accuracy": "high"}', "val/accuracy is not a number: 'high'"),
        ("metrics.json", '{"val/accuracy": true}', "val/accuracy is not a number: 'True'"),
        ("metrics.json", '{"val/accuracy_per_class": {"Bag": [1]}}', "val/accuracy_per_class/Bag is not a number"),
    ],
)
def test_what_is_damaged_is_left_out_with_its_reason(
    file: str, text: str | bytes | None, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad") / file
    if text is None:
        bad.unlink()
    else:
        bad.write_bytes(text.encode() if isinstance(text, str) else text)
    with caplog.at_level(logging.WARNING):
        assert [run.folder.name for run in read_runs([tmp_path])] == ["good"]
    (warning,) = caplog.messages
    assert warning.startswith(f"left out: {tmp_path / 'bad'} (")
    assert reason in warning
    assert "\n" not in warning


def test_the_first_of_many_damaged_runs_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path / "good")
    for name in range(7):
        (tmp_path / f"bad{name}").mkdir()
        (tmp_path / f"bad{name}" / "run.json").write_text("{")
    read_runs([tmp_path])
    (warning,) = caplog.messages
    assert warning.count("can't be read") == 3
    assert warning.endswith(" and 4 more")


def test_no_runs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no runs"):
        read_runs([tmp_path])
    with pytest.raises(ValueError, match=r"runs=.*nowhere: there is no such folder"):
        read_runs([tmp_path, tmp_path / "nowhere"])
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"no run can be read: .*run\.json can't be read"):
        read_runs([tmp_path])


@pytest.mark.parametrize("overrides", [(), ("model=mlp",), ("callbacks=early_stopping",), ("pictures=none",)])
def test_a_config_is_read_as_omegaconf_writes_it(overrides: tuple[str, ...]) -> None:
    config, _ = composed(overrides)
    text = OmegaConf.to_yaml(config)
    found = read_config(text)
    assert {key: OmegaConf.select(config, key) for key in found} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in found.items()
    }
    assert read_config(f"# by hand\n---\n{text}") == found  # all at once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what:\n- a\n- 1\nb: {c: null, d: 1}\n", {"what": ("a", 1), "b.d": 1}),
        ("a: 'one\n\n  two'\nb: |\n  x: 1\n\n  y\n", {"a": "one\ntwo", "b": "x: 1\n\ny\n"}),
        ("# nothing\n\na: 1 # one\n# more\nb: 2\n", {"a": 1, "b": 2}),
        ("a: .nan\nb: 2026-11-22\nc: [{d: [1]}]\n", {"a": "nan", "b": "2026-11-22", "c": ('{"d": [1]}',)}),
        ("{a: 1, b: 2}", {"a": 1, "b": 2}),
        ("a: 1\na: 2\n", {"a": 2}),
        (
            "a:\n  b: |\n    x: 1\n      y\n  c:\n  - 1\n  d:\n    e: f\n      g\n",
            {"a.b": "x: 1\n  y\n", "a.c": (1,), "a.d.e": "f g"},
        ),
        (
            "a:\n  b\n  c\nd:\n  - 1\ne:\n  'x: 1'\nf:\n  {x: 1,\n  y: 2}\n",
            {"a": "b c", "d": (1,), "e": "x: 1", "f.x": 1, "f.y": 2},
        ),
        ("a:\n  # none\n  b: 1 # one\n", {"a.b": 1}),
        ("a: 'x\n  b: 1\n  c: 2'\n", {"a": "x b: 1 c: 2"}),
    ],
)
def test_a_config_written_by_hand(text: str, expected: dict[str, Any]) -> None:
    assert read_config(text) == expected


# Settings


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "outputs=elsewhere",
        "compile=true",
        "test=false",
        "report=false",
        "pictures=all",
        "data.eval_batch_size=10",
        "trainer=cpu",
        "trainer.profiler=simple",
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
        "trainer=ddp_cpu",
        "data.root=elsewhere",
        "optimizer=adamw",
        "model.dropout=0.05",
    ],
)
def test_what_changes_no_weight_is_no_setting(override: str, tmp_path: Path) -> None:
    a, b = (read_run(write_run(tmp_path / name, *words)) for name, words in (("a", ()), ("b", (override,))))
    assert identity(a.settings) == identity(b.settings)


@pytest.mark.parametrize(
    "override",
    [
        "monitor=val/loss",  # chooses another checkpoint
        "trainer.precision=32-true",
        "trainer.limit_train_batches=1",  # one batch; 1.0 is all of them
        "trainer.max_epochs=7",
        "data.batch_size=64",
        "data.val_size=100",
        "augment=none",
        "callbacks=early_stopping",
        "scheduler=cosine",
    ],
)
def test_what_changes_a_weight_or_the_measured_checkpoint_is_a_setting(override: str, tmp_path: Path) -> None:
    a, b = (read_run(write_run(tmp_path / name, *words)) for name, words in (("a", ()), ("b", (override,))))
    assert identity(a.settings) != identity(b.settings)


def test_equal_numbers_are_equal_settings() -> None:
    assert identity({"model.dropout": 0}) == identity({"model.dropout": 0.0})
    assert identity({"model.batch_norm": True}) != identity({"model.batch_norm": 1})
    assert identity({}) == identity(read_config("a: null\nb: {}\nc: {d: null}\n"))


def test_other_data_are_another_setting() -> None:
    one, two = ({"train-images-idx3-ubyte": digest} for digest in ("aa", "bb"))
    config = {"seed": 0, "lr": 0.1}
    assert settings_of(config, one) == settings_of(dict(config), dict(one))
    assert list(columns([settings_of(config, one), settings_of(config, two)], [{}, {}])) == ["dataset"]


def differing(tmp_path: Path, *runs: tuple[str, ...], choices: bool = True) -> dict[str, list[Any]]:
    read = [read_run(write_run(tmp_path / str(i), *words, choices=choices)) for i, words in enumerate(runs)]
    return columns([run.settings for run in read], [run.choices for run in read])


def test_a_choice_is_one_column_and_its_defaults_are_none(tmp_path: Path) -> None:
    found = differing(tmp_path, ("optimizer=sgd",), ("optimizer=adam",), ("optimizer=momentum",))
    assert found == {"optimizer": ["sgd", "adam", "momentum"]}


def test_a_key_below_a_choice_is_a_column_if_it_differs_within_a_choice(tmp_path: Path) -> None:
    runs = (("optimizer=sgd",), ("optimizer=adam",), ("optimizer=adam", "optimizer.lr=0.002"))
    assert differing(tmp_path, *runs) == {"optimizer": ["sgd", "adam", "adam"], "optimizer.lr": [0.1, 0.001, 0.002]}


def test_keys_of_one_choice_are_columns_of_their_own(tmp_path: Path) -> None:
    runs = (("model.dropout=0.1", "model.channels=[4]"), ("model.dropout=0.1", "model.channels=[8,8]"))
    assert differing(tmp_path, *runs) == {"model.channels": [(4,), (8, 8)]}


def test_options_that_end_in_the_same_values_are_no_column(tmp_path: Path) -> None:
    runs = (("loss=cross_entropy_smoothed",), ("loss=cross_entropy", "loss.label_smoothing=0.1", "seed=0"))
    assert differing(tmp_path, *runs) == {}


def test_where_choices_are_not_told_the_classes_stand_for_them(tmp_path: Path) -> None:
    runs = (("optimizer=sgd",), ("optimizer=adam",), ("optimizer=momentum",))
    found = differing(tmp_path, *runs, choices=False)
    assert found["optimizer"] == ["SGD", "Adam", "SGD"]
    assert found.keys() == {"optimizer", "optimizer.lr", "optimizer.nesterov", "optimizer.weight_decay"}


def test_trainer_and_data_have_a_column_for_each_key(tmp_path: Path) -> None:
    runs = (("trainer=cpu", "trainer.max_epochs=2"), ("trainer=default",), ("data=folder", "data.batch_size=9"))
    found = differing(tmp_path, *runs)
    assert found == {"data.batch_size": [128, 128, 9], "trainer.max_epochs": [2, 6, 6]}


def test_a_node_may_be_missing_on_one_side() -> None:
    one = read_config("callbacks: {}\nscheduler: null\nlr: 1\n")
    other = read_config(
        "callbacks: {early_stopping: {patience: 3}}\nscheduler: {_target_: a.cosine, final: 0.1}\nlr: 1\n"
    )
    found = columns([one, other], [{}, {}])
    assert found == {"callbacks.early_stopping.patience": [None, 3], "scheduler": [None, "cosine"]}
    named = columns([one, other], [{"callbacks": "none"}, {"callbacks": "early_stopping"}])
    assert named["callbacks"] == ["none", "early_stopping"]


def test_rows_can_always_be_told_apart_by_their_columns(tmp_path: Path) -> None:
    words = [("optimizer=sgd",), ("optimizer=sgd", "optimizer.lr=1"), ("optimizer=adam",), ("model=mlp",)]
    words += [("model=mlp", "model.hidden=[]"), ("augment=none", "optimizer=adam"), ("scheduler=cosine",), ()]
    for choices in (True, False):
        found = differing(tmp_path / str(choices), *words, choices=choices)
        rows = list(zip(*found.values(), strict=True))
        assert len(set(rows)) == len(words)


# Ranking


def test_seeds_of_one_setting_fold_into_a_row() -> None:
    found = ranked(
        result(0.90, 0), result(0.93, 1, lr=0.2), result(0.92, 1), result(0.95, 2, lr=0.2), result(0.94, 2, lr=0.2)
    )
    best, other = found.rows
    assert (best.rank, best.values, best.score.n) == (1, {"lr": 0.2}, 2)
    assert best.score.mean == pytest.approx(0.935)
    assert (other.rank, other.score.n, other.score.mean) == (2, 2, pytest.approx(0.91))
    assert other.score.sd == pytest.approx(0.02 / math.sqrt(2))
    assert other.difference.mean == pytest.approx(-0.025)
    assert found.columns == ["lr"]


def test_of_a_seed_that_was_run_twice_the_newest_counts() -> None:
    found = ranked(result(0.5, 0, ended=2), result(0.9, 0, ended=3), result(0.6, 0, ended=1), result(0.8, 1))
    (row,) = found.rows
    assert [run.metrics["val/accuracy"] for run in row.runs] == [0.9, 0.8]
    assert any("only the newest counts: 2 left out" in note for note in found.notes)


def test_lower_is_better_for_a_loss() -> None:
    runs = [result(0.9, lr=lr, metrics={"val/loss": loss, "val/accuracy": 0.9}) for lr, loss in ((1, 0.5), (2, 0.3))]
    assert [row.values["lr"] for row in ranked(*runs, metric="val/loss").rows] == [2, 1]
    assert [row.values["lr"] for row in ranked(*runs).rows] == [1, 2]  # equal: as they came


def test_what_has_no_value_is_last_and_has_no_rank() -> None:
    runs = [result(math.nan, lr=1), result(None, lr=2), result(0.9, lr=3), result(math.nan, 1, lr=3)]
    assert [(row.rank, row.verdict) for row in ranked(*runs).rows] == [(None, "unknown")] * 3
    found = ranked(*runs, result(0.1, lr=4))
    assert [(row.rank, row.values["lr"]) for row in found.rows] == [(1, 4), (None, 3), (None, 1), (None, 2)]


def test_verdicts() -> None:
    groups = {1: (0.95, 0.951, 0.949), 2: (0.949, 0.95, 0.95), 3: (0.7, 0.71, 0.72), 4: (0.9,)}
    found = ranked(*(result(value, seed, lr=lr) for lr, group in groups.items() for seed, value in enumerate(group)))
    assert {row.values["lr"]: row.verdict for row in found.rows} == {1: "best", 2: "noise", 3: "worse", 4: "unknown"}
    assert found.tested == 2


def test_a_difference_that_would_pass_alone_is_noise_among_many() -> None:
    pair = [result(value, seed, lr=1) for seed, value in enumerate((0.90, 0.91, 0.92))]
    pair += [result(value, seed, lr=2) for seed, value in enumerate((0.875, 0.88, 0.885))]
    assert [row.verdict for row in ranked(*pair).rows] == ["best", "worse"]
    others = [result(value, s, lr=lr) for lr in range(3, 13) for s, value in enumerate((0.88, 0.90, 0.92))]
    verdicts = {row.values["lr"]: row for row in ranked(*pair, *others).rows}
    assert verdicts[2].verdict == "noise"
    assert verdicts[2].difference.p < 0.05 < verdicts[2].corrected


def test_runs_that_have_not_finished_are_not_ranked() -> None:
    runs = [result(0.9), *(result(0.99, status=status) for status in ("failed", "running", "interrupted", "pruned"))]
    found = ranked(*runs)
    assert len(found.rows) == 1
    assert [run.status for run in found.unranked] == ["failed", "running", "interrupted", "pruned"]
    assert ranked(result(0.9, status="failed"), metric="val/loss").rows == []


def test_the_metric_is_what_the_runs_monitored() -> None:
    losses = [result(0.9, seed, monitor="val/loss", metrics={"val/loss": 0.1}) for seed in (0, 1)]
    assert ranked(*losses).metric == "val/loss"
    mixed = ranked(*losses, result(0.9, 2))
    assert mixed.metric == "val/accuracy"
    assert any("monitored different metrics" in note for note in mixed.notes)
    assert ranked(result(0.9, monitor=None)).metric == "val/accuracy"


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("test/accuracy", "test images are for the result, not for choosing"),
        ("val/acuracy", "did you mean val/accuracy"),
        ("train/accuracy", "did you mean val/accuracy"),
    ],
)
def test_another_metric_is_refused(metric: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"metric={metric}: .*{reason}"):
        ranked(result(0.9, metrics={"val/accuracy": 0.9, "test/accuracy": 0.9, "train/accuracy": 1.0}), metric=metric)


def test_the_test_accuracy_is_shown_and_ranks_nothing() -> None:
    runs = [result(0.9, 0, lr=1, metrics={"val/accuracy": 0.9, "test/accuracy": 0.5})]
    runs += [
        result(0.8, s, lr=2, metrics={"val/accuracy": 0.8} | ({"test/accuracy": 0.7 + s / 10} if s else {}))
        for s in (0, 1, 2)
    ]
    first, second = ranked(*runs).rows
    assert (first.values["lr"], first.test.mean) == (1, 0.5)
    assert (second.test.n, second.test.mean) == (2, pytest.approx(0.85))
