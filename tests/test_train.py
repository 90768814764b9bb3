"""scripts/train.py and scripts/evaluate.py as a person uses them."""

import csv
import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript, press_ctrl_c
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist.data.info import FASHION_MNIST
from fmnist.runs import checkpoints
from fmnist.runs.run import Run


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return checkpoints.network_weights(checkpoints.load(checkpoint))


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_run_leaves_everything_in_one_folder(train: RunScript) -> None:
    done = train("name=mine", "trainer.max_epochs=3")
    assert done.status == 0, done.err
    assert done.err == ""
    run = done.run
    assert run.parent.name == "mine"
    names = {path.name for path in run.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert events
    assert names - events == {"config.yaml", "checkpoints", "metrics.csv", "metrics.json", "run.json", "run.log"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}

    metrics = metrics_of(run)
    assert metrics["epochs"] == 3
    assert 0 <= metrics["untrained/accuracy"] < 0.5 < metrics["test/accuracy"] <= 1
    assert list(metrics["test/accuracy_per_class"]) == list(FASHION_MNIST.classes)
    per_class = metrics["test/accuracy_per_class"].values()
    assert metrics["test/accuracy"] == pytest.approx(sum(per_class) / len(per_class))  # 20 test images of each class
    assert {"val/accuracy", "val/loss", "test/loss", "train/seconds", "train/images_per_second"} <= metrics.keys()
    assert metrics["train/images_per_second"] > 0

    record = record_of(run)
    assert record["status"] == "finished"
    assert record["start"] <= record["end"]
    assert "name=mine" in record["overrides"]
    assert record["seed"] == 0
    assert len(record["dataset"]) == 4
    assert record["hardware"]["cores"] == os.cpu_count()
    assert record["packages"]["torch"] == torch.__version__.split("+")[0]

    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[0]["val/accuracy"]) == pytest.approx(metrics["untrained/accuracy"])
    assert [row["step"] for row in rows] == ["0", "10", "20", "30"]
    assert rows[-1]["train/accuracy_per_class/Ankle boot"] != ""
    assert metrics["val/accuracy"] == pytest.approx(max(float(row["val/accuracy"]) for row in rows[1:]))

    shown = EventAccumulator(str(run))
    shown.Reload()
    assert {"train/loss", "val/loss", "val/accuracy", "val/accuracy_per_class/Bag", "learning_rate"} <= set(
        shown.Tags()["scalars"]
    )
    assert [event.value for event in shown.Scalars("val/accuracy")] == pytest.approx(
        [float(row["val/accuracy"]) for row in rows]
    )

    lines = done.out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert any("untrained: accuracy" in line for line in lines)
    assert any(line.split()[:1] == ["Trouser"] and line.split()[2] == "20" for line in lines)
    assert lines[-2:] == [f"run folder: {run}", "curves:     tensorboard --logdir outputs"]
    assert all(line in (run / "run.log").read_text() for line in lines[:5])


def test_a_run_ends_with_a_report_on_the_test_images(train: RunScript) -> None:
    done = train("report=true")
    assert f"report:     {done.run}/report.html" in done.out.splitlines()
    page = (done.run / "report.html").read_text()
    assert f"{metrics_of(done.run)['test/accuracy']:.2%} of 200 test images" in page


def test_there_is_a_word_where_there_is_nothing_to_report_on(train: RunScript) -> None:
    done = train("report=true", "data.val_size=0", "test=false")
    assert done.status == 0, done.err
    assert "report:     none" in done.out
    assert not (done.run / "report.html").exists()


def result_lines(done: Done) -> list[str]:
    """What a script shows from the table on."""
    lines = done.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["class"])
    return lines[start : start + 14]


@pytest.mark.parametrize("by", ["run", "checkpoint"])
def test_evaluate_gives_the_numbers_of_the_run(train: RunScript, run_script: RunScript, by: str) -> None:
    trained = train()
    argument = trained.run if by == "run" else trained.run / "checkpoints" / "best.ckpt"
    if by == "checkpoint":  # the file alone is enough
        argument = argument.rename(trained.folder / "alone.ckpt")
        (trained.run / "metrics.json").unlink()
    evaluated = run_script("evaluate", f"{by}={argument}")
    assert evaluated.status == 0, evaluated.err
    assert result_lines(evaluated) == result_lines(trained)
    assert "test: loss" in evaluated.out


def test_evaluate_gives_them_exactly_and_from_any_folder(
    train: RunScript, run_script: RunScript, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmnist.evaluation import main as evaluate

    results = []
    original = evaluate.measure
    monkeypatch.setattr(evaluate, "measure", lambda *arguments: results.append(original(*arguments)) or results[-1])
    (tmp_path / "data").symlink_to(data_root)
    trained = train("data.root=data", "model.channels=[6]")
    assert trained.status == 0, trained.err
    moved = trained.run.rename(tmp_path / "moved run")
    (tmp_path / "else").mkdir()
    metrics = metrics_of(moved)
    monkeypatch.chdir(tmp_path / "else")
    monkeypatch.setattr(monkeypatch, "chdir", lambda _: None)  # stay here
    for split in ("test", "val"):
        assert run_script("evaluate", f'run="{moved}"', f"split={split}").status == 0
        assert results[-1].loss == metrics[f"{split}/loss"]
        assert results[-1].accuracy == metrics[f"{split}/accuracy"]
        assert results[-1].accuracy_per_class == list(metrics[f"{split}/accuracy_per_class"].values())


def test_the_progress_bar_shows_loss_and_accuracy_of_the_epoch_so_far(
    train: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmnist.training.callbacks import progress

    seen = []
    original = progress.Progress.get_metrics
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "SHOWN_EVERY", 1e-3)
    monkeypatch.setattr(
        progress.Progress, "get_metrics", lambda *arguments: seen.append(original(*arguments)) or seen[-1]
    )
    done = train("trainer.max_epochs=1", "test=false")
    assert done.status == 0, done.err
    last = rows_of(done.run)[-1]
    assert seen[-1] == {
        "loss": f"{float(last['train/loss']):.4f}",
        "accuracy": f"{float(last['train/accuracy']):.2%}",
    }


def test_evaluate_measures_the_validation_images_of_the_run(train: RunScript, run_script: RunScript) -> None:
    trained = train()
    evaluated = run_script("evaluate", f"run={trained.run}", "split=val")
    assert f"val: loss {metrics_of(trained.run)['val/loss']:.4f}" in evaluated.out


def test_test_false_leaves_the_test_split_alone(train: RunScript) -> None:
    done = train("test=false", "trainer.max_epochs=1")
    assert done.status == 0
    assert not [name for name in metrics_of(done.run) if name.startswith("test")]
    assert "val/accuracy" in metrics_of(done.run)


def test_without_validation_images_the_last_checkpoint_is_the_result(train: RunScript, run_script: RunScript) -> None:
    done = train("data.val_size=0", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert [path.name for path in (done.run / "checkpoints").iterdir()] == ["last.ckpt"]
    metrics = metrics_of(done.run)
    assert metrics["checkpoint"] == "last.ckpt"
    assert not [name for name in metrics if name.startswith("val")]
    assert "600 images to train on, 0 to validate" in done.out
    assert result_lines(run_script("evaluate", f"run={done.run}")) == result_lines(done)
    refused = run_script("evaluate", f"run={done.run}", "split=val")
    assert refused.status == 2
    assert "split=val" in refused.err


def test_the_best_checkpoint_is_the_one_with_the_best_monitored_metric(train: RunScript) -> None:
    done = train("trainer.max_epochs=4", "monitor=val/loss", "optimizer=sgd", "scheduler=constant", "optimizer.lr=0.3")
    rows = rows_of(done.run)[1:]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert checkpoints.load(done.run / "checkpoints" / "best.ckpt")["global_step"] == int(best["step"])
    assert metrics_of(done.run)["val/loss"] == pytest.approx(float(best["val/loss"]), rel=1e-5)


def test_validating_in_some_epochs_only_chooses_among_those(train: RunScript) -> None:
    done = train("trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2", "test=false")
    assert done.status == 0, done.err
    rows = rows_of(done.run)
    best = checkpoints.load(done.run / "checkpoints" / "best.ckpt")["global_step"]
    assert best in (20, 40)
    assert [row["epoch"] for row in rows if row["val/accuracy"]] == ["0", "2", "4"]
    assert [row["epoch"] for row in rows if row["train/accuracy"]] == ["1", "2", "3", "4", "5"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(train: RunScript) -> None:
    choices = ("augment=flip_shift_erase", "trainer.max_epochs=1", "test=false")
    one, same, other = (
        train(*choices, f"name={name}", f"seed={seed}") for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    last = {name: next(one.folder.glob(f"outputs/{name}/*/checkpoints/last.ckpt")) for name in "abc"}
    assert [one.status, same.status, other.status] == [0, 0, 0]
    assert_same_weights(last["a"], last["b"])
    assert not torch.equal(weights_of(last["a"])["blocks.0.weight"], weights_of(last["c"])["blocks.0.weight"])


def test_a_finished_run_goes_on_in_its_folder(train: RunScript, run_script: RunScript) -> None:
    first = train("trainer.max_epochs=2", "scheduler=constant", "name=cut")
    run = first.run
    untrained = metrics_of(run)["untrained/accuracy"]
    again = run_script("train", f"resume={run}")
    assert again.status == 2
    assert "finished" in again.err
    resumed = run_script("train", f"resume={run}", "trainer.max_epochs=4")
    assert resumed.status == 0, resumed.err
    assert resumed.run == run
    assert [row["epoch"] for row in rows_of(run)] == ["0", "1", "2", "3", "4"]
    assert metrics_of(run)["epochs"] == 4
    assert metrics_of(run)["untrained/accuracy"] == metrics_of(first.run)["untrained/accuracy"] == untrained
    (part,) = record_of(run)["resumed"]
    assert part["overrides"] == [f"resume={run}", "trainer.max_epochs=4"]
    assert record_of(run)["status"] == "finished"
    shown = EventAccumulator(str(run))
    shown.Reload()
    steps = [event.step for event in shown.Scalars("val/accuracy")]
    assert steps == sorted(set(steps))
    assert len(steps) == 5

    whole = train("trainer.max_epochs=4", "scheduler=constant", "name=whole")
    whole_run = next(whole.folder.glob("outputs/whole/*"))
    assert_same_weights(run / "checkpoints" / "last.ckpt", whole_run / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    ("batch", "extra", "step", "epochs"),
    [
        (1, [], 1, 0),
        (14, [], 14, 1),
        (20, [], 20, 2),  # the last one of an epoch, which is then finished
        (30, [], 30, 3),  # the last one of all
        (13, ["trainer.accumulate_grad_batches=4"], 3 + 1, 1),  # gradients are being accumulated
    ],
)
def test_ctrl_c_ends_the_run_and_it_goes_on_as_if_nothing_had_been(
    train: RunScript, run_script: RunScript, at_batch, batch: int, extra: list[str], step: int, epochs: int
) -> None:
    choices = ("trainer.max_epochs=3", "augment=flip_shift", "model.dropout=0.3", *extra)
    undo = at_batch(batch, press_ctrl_c)
    cut = train(*choices, "name=cut")
    assert cut.status == 130
    assert "Traceback" not in cut.err
    run = cut.run
    assert record_of(run)["status"] == "interrupted"
    assert metrics_of(run)["epochs"] == epochs
    assert checkpoints.load(run / "checkpoints" / "last.ckpt")["global_step"] == step
    assert f"resume={run}" in cut.out

    undo.undo()
    time.sleep(1 - time.time() % 1)  # files of one second are ordered by a number as text: 10 < 9
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    whole = train(*choices, "name=whole")
    whole_run = next(whole.folder.glob("outputs/whole/*"))
    assert_same_weights(run / "checkpoints" / "last.ckpt", whole_run / "checkpoints" / "last.ckpt")
    untimed = [
        [{k: v for k, v in row.items() if "second" not in k} for row in rows_of(folder)] for folder in (run, whole_run)
    ]
    assert untimed[0] == untimed[1]
    assert recent_losses(run) == recent_losses(whole_run)


def recent_losses(run: Path) -> list[tuple[int, float]]:
    """The curve of the mean loss of each few steps."""
    shown = EventAccumulator(str(run))
    shown.Reload()
    return [(event.step, event.value) for event in shown.Scalars("train/loss_step")]


def test_what_happened_after_the_last_checkpoint_leaves_no_trace_in_the_curves(
    train: RunScript, run_script: RunScript, at_batch, tmp_path: Path
) -> None:
    def break_down() -> None:
        raise RuntimeError("the power went")

    undo = at_batch(18, break_down)
    with pytest.raises(RuntimeError, match="the power went"):
        train("trainer.log_every_n_steps=1")
    undo.undo()
    (run,) = tmp_path.glob("outputs/train/*")
    assert record_of(run)["status"] == "failed"
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    shown = EventAccumulator(str(run))
    shown.Reload()
    steps = [event.step for event in shown.Scalars("train/loss_step")]
    assert steps == list(range(20))


def test_a_moved_run_keeps_its_best_checkpoint(train: RunScript, run_script: RunScript) -> None:
    first = train("trainer.max_epochs=2", "optimizer=sgd", "optimizer.lr=0.01", "scheduler=constant", "test=false").run
    best = checkpoints.load(first / "checkpoints" / "best.ckpt")["global_step"]
    moved = first.rename(first.with_name("moved"))
    # From here on it gets worse.
    checkpoint = checkpoints.load(moved / "checkpoints" / "last.ckpt")
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        group["initial_lr"] = group["lr"] = 1e4
    checkpoint["lr_schedulers"][0]["base_lrs"] = [1e4]
    torch.save(checkpoint, moved / "checkpoints" / "last.ckpt")
    resumed = run_script("train", f"resume={moved}", "trainer.max_epochs=3", "stop_on_nan=false")
    assert resumed.status == 0, resumed.err
    assert "warning" not in resumed.err
    assert float(rows_of(moved)[-1]["val/accuracy"]) < 0.5
    assert checkpoints.load(moved / "checkpoints" / "best.ckpt")["global_step"] == best


def test_a_resumed_run_keeps_no_result_of_an_older_checkpoint(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1").run
    resumed = run_script("train", f"resume={run}", "trainer.max_epochs=2", "test=false")
    assert resumed.status == 0
    assert not [name for name in metrics_of(run) if name.startswith("test")]
    assert "untrained/accuracy" in metrics_of(run)


def test_a_run_has_one_writer(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "test=false").run
    with Run(run).locked():
        refused = run_script("train", f"resume={run}", "trainer.max_epochs=2")
    assert refused.status == 2
    assert "another process" in refused.err


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "32-true"])
def test_other_precisions_train(train: RunScript, precision: str) -> None:
    done = train(f"trainer.precision={precision}", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert record_of(done.run)["precision"] == precision
    assert metrics_of(done.run)["val/accuracy"] > 0.3


def test_a_profiler_reports(train: RunScript) -> None:
    done = train("trainer.profiler=simple", "trainer.max_epochs=1", "test=false")
    assert "run_training_epoch" in done.out


def test_limits_of_steps_and_time_end_the_schedule_where_they_end_the_training(train: RunScript) -> None:
    done = train("trainer.max_epochs=null", "trainer.max_steps=15", "scheduler=one_cycle", "test=false")
    assert done.status == 0, done.err
    assert checkpoints.load(done.run / "checkpoints" / "last.ckpt")["lr_schedulers"][0]["_last_lr"] == [0.0]


def test_two_runs_in_one_second_get_two_folders(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist.runs import run as runs

    class StandingClock(runs.datetime):
        @classmethod
        def now(cls, tz=None):  # noqa: ARG003
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runs, "datetime", StandingClock)
    for _ in range(2):
        done = train("trainer=debug")
        assert done.status == 0, done.err
    assert {path.name for path in done.folder.glob("outputs/train/*")} == {
        "2026-01-02_03-04-05",
        "2026-01-02_03-04-05_2",
    }


def test_the_script_returns_the_monitored_metric(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist import train as job

    returned = []
    original = job.main
    monkeypatch.setattr(job, "main", lambda *arguments: returned.append(original(*arguments)))
    done = train("trainer.max_epochs=1", "monitor=val/accuracy_per_class/Trouser")
    assert returned == [metrics_of(done.run)["val/accuracy_per_class"]["Trouser"]]


def test_early_stopping_watches_the_monitored_metric(train: RunScript) -> None:
    done = train(
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=0.0",
        "monitor=val/loss",
        "optimizer=sgd",
        "optimizer.lr=0.5",
        "scheduler=constant",
        "trainer.max_epochs=30",
    )
    assert done.status == 0, done.err
    losses = [float(row["val/loss"]) for row in rows_of(done.run)[1:]]
    worse = [after >= min(losses[: i + 1]) for i, after in enumerate(losses[1:])]
    assert len(losses) < 30
    assert worse == [False] * (len(worse) - 1) + [True]
    assert "early stopping" in done.out


def test_overfitting_a_few_batches_learns_them(train: RunScript) -> None:
    done = train("trainer=overfit", "trainer.max_epochs=30", "trainer.log_every_n_steps=1")
    assert done.status == 0, done.err
    assert float(rows_of(done.run)[-1]["train/accuracy"]) > 0.95
