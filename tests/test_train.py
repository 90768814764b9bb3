"""scripts/train.py and scripts/evaluate.py by their command lines."""

import csv
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript, press_ctrl_c
from kills import curves, differences
from kills import equal as same
from lightning.pytorch import Callback

from fmnist.config import build
from fmnist.data.datamodule import ImageDataModule
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


def test_a_run_writes_everything_into_one_folder(train: RunScript) -> None:
    done = train("name=mine", "trainer.max_epochs=3", "report=true")
    assert done.status == 0, done.err
    assert done.err == ""
    assert "not validated" not in done.out
    run = done.run
    assert run.parent.name == "mine"
    names = {path.name for path in run.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert events
    assert names - events == {
        *("config.yaml", "checkpoints", "metrics.csv", "metrics.json", "run.json", "run.log", "report.html")
    }
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

    points = curves(run)
    assert {"loss/train", "loss/val", "val_accuracy_per_class/Bag", "training/learning_rate/filters"} <= points.keys()
    assert "epoch" not in points
    assert [value for _, value in points["accuracy/val"]] == pytest.approx([float(row["val/accuracy"]) for row in rows])

    lines = done.out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert any("untrained: accuracy" in line for line in lines)
    assert any(line.split()[:1] == ["Trouser"] and line.split()[2] == "20" for line in lines)
    assert lines[-3:] == [
        f"report:     {run}/report.html",
        f"run folder: {run}",
        "curves:     tensorboard --logdir outputs",
    ]
    assert f"{metrics['test/accuracy']:.2%} of 200 test images" in (run / "report.html").read_text()
    assert all(line in (run / "run.log").read_text() for line in lines[:5])


def result_lines(done: Done) -> list[str]:
    """Return the table of the classes and the metrics that a script prints."""
    lines = done.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["class"])
    return lines[start : start + 14]


def test_evaluate_gives_the_exact_metrics_of_the_run_from_any_folder(
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

    def assert_equal_metrics(split: str, argument: str) -> Done:
        evaluated = run_script("evaluate", argument, f"split={split}")
        assert evaluated.status == 0, evaluated.err
        assert results[-1].loss == metrics[f"{split}/loss"]
        assert results[-1].accuracy == metrics[f"{split}/accuracy"]
        assert results[-1].accuracy_per_class == list(metrics[f"{split}/accuracy_per_class"].values())
        assert f"{split}: loss {metrics[f'{split}/loss']:.4f}" in evaluated.out
        return evaluated

    assert_equal_metrics("val", f'run="{moved}"')
    assert result_lines(assert_equal_metrics("test", f'run="{moved}"')) == result_lines(trained)
    (moved / "checkpoints" / "best.ckpt").rename("alone.ckpt")  # the file alone is enough
    shutil.rmtree(moved)
    assert_equal_metrics("test", "checkpoint=alone.ckpt")


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


def test_numbers_of_images_are_those_that_the_limits_leave(train: RunScript) -> None:
    limits = ("trainer.limit_train_batches=2", "trainer.limit_test_batches=0.5", "data.eval_batch_size=50")
    done = train(*limits, "trainer.max_epochs=1")
    assert "100/500 images to train on, 100 to validate, 100/200 to test\n" in done.out


def test_without_validation_and_test_images_the_last_checkpoint_is_the_result(
    train: RunScript, run_script: RunScript
) -> None:
    done = train("data.val_size=0", "test=false", "report=true", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert [path.name for path in (done.run / "checkpoints").iterdir()] == ["last.ckpt"]
    metrics = metrics_of(done.run)
    assert metrics["checkpoint"] == "last.ckpt"
    assert not [name for name in metrics if name.startswith(("val", "test"))]
    assert "600 images to train on, 0 to validate" in done.out
    assert "report:     none" in done.out
    assert not (done.run / "report.html").exists()
    assert run_script("evaluate", f"run={done.run}").status == 0
    run_script("evaluate", f"run={done.run}", "split=val").assert_refused("split=val")


def test_the_best_checkpoint_has_the_best_monitored_metric_of_the_validated_epochs(train: RunScript) -> None:
    options = ("trainer.max_epochs=9", "trainer.check_val_every_n_epoch=2", "monitor=val/loss")
    done = train(*options, "optimizer=sgd", "scheduler=constant", "optimizer.lr=0.3")
    assert done.status == 0, done.err
    assert "the last epoch was not validated: the result is of the best checkpoint before it" in done.out
    rows = rows_of(done.run)
    assert [row["epoch"] for row in rows if row["val/loss"]] == ["0", "2", "4", "6", "8"]
    assert [row["epoch"] for row in rows if row["train/accuracy"]] == [str(epoch) for epoch in range(1, 10)]
    best = min(rows[2::2], key=lambda row: float(row["val/loss"]))
    assert checkpoints.load(done.run / "checkpoints" / "best.ckpt")["global_step"] == int(best["step"])
    assert metrics_of(done.run)["val/loss"] == pytest.approx(float(best["val/loss"]), rel=1e-5)


def test_a_finished_run_resumes_in_its_folder(train: RunScript, run_script: RunScript) -> None:
    same_for_any_length = ("scheduler=constant", "augment.until=1")
    first = train("trainer.max_epochs=2", *same_for_any_length, "name=resumed")
    run = first.run
    untrained = metrics_of(run)["untrained/accuracy"]
    run_script("train", f"resume={run}").assert_refused("finished")
    with Run(run).locked():
        run_script("train", f"resume={run}", "trainer.max_epochs=4").assert_refused("another process")
    resumed = run_script("train", f"resume={run}", "trainer.max_epochs=4", "test=false")
    assert resumed.status == 0, resumed.err
    assert resumed.run == run
    assert [row["epoch"] for row in rows_of(run)] == ["0", "1", "2", "3", "4"]
    assert metrics_of(run)["epochs"] == 4
    assert metrics_of(run)["untrained/accuracy"] == untrained
    assert not [name for name in metrics_of(run) if name.startswith("test")]  # of the older checkpoint
    (part,) = record_of(run)["resumed"]
    assert part["overrides"] == [f"resume={run}", "trainer.max_epochs=4", "test=false"]
    assert record_of(run)["status"] == "finished"
    steps = [step for step, _ in curves(run)["accuracy/val"]]
    assert steps == sorted(set(steps))
    assert len(steps) == 5

    whole = train("trainer.max_epochs=4", *same_for_any_length, "name=whole")
    (expected,) = whole.folder.glob("outputs/whole/*")
    last, other = (checkpoints.load(folder / "checkpoints" / "last.ckpt") for folder in (run, expected))
    assert same(last["state_dict"], other["state_dict"])


RANDOM = ["augment=flip_shift", "model.dropout=0.3"]
MIXED = ["augment.alternate=true", "augment.erase=0.3", "augment.mixup=0.2", "augment.cutmix=1", "augment.until=0.6"]
SAMPLE_STATS = ["data.self_distillation=0.4", "loss=mean_squared_error", "augment.alternate=true"]


@pytest.mark.parametrize(
    ("overrides", "interruptions"),
    [
        (RANDOM, [(1, 1, 0), (14, 14, 1), (20, 20, 2), (30, 30, 3)]),  # the last batches of an epoch and of all, too
        (["trainer.accumulate_grad_batches=4"], [(13, 3 + 1, 1)]),  # gradients are being accumulated
        # An epoch has 6 batches; the last one isn't mixed.
        pytest.param(["data.prune=0.4", *MIXED], [(8, 8, 1)], marks=pytest.mark.slow),
        pytest.param(["data.prune=0.4", *SAMPLE_STATS], [(16, 16, 2)], marks=pytest.mark.slow),
    ],
    ids=["random", "accumulated", "mixed", "sample stats"],
)
def test_a_training_that_is_interrupted_by_ctrl_c_ends_as_without_interruption(
    train: RunScript,
    run_script: RunScript,
    at_batch,
    overrides: list[str],
    interruptions: list[tuple[int, int, int]],
) -> None:
    """Each interruption is a batch, the steps until then and the epochs that are finished then."""
    run = None
    for batch, step, epochs in interruptions:
        undo = at_batch(batch, press_ctrl_c)
        if run:
            done = run_script("train", f"resume={run}")
        else:
            done = train("trainer.max_epochs=3", "name=resumed", *overrides)
        assert done.status == 130, done.err
        assert "Traceback" not in done.err
        run = done.run
        assert record_of(run)["status"] == "interrupted"
        assert metrics_of(run)["epochs"] == epochs
        assert checkpoints.load(run / "checkpoints" / "last.ckpt")["global_step"] == step
        assert f"resume={run}" in done.out
        undo.undo()
        time.sleep(1 - time.time() % 1)  # files of one second are ordered by a number as text: 10 < 9
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert f"from step {step}" in resumed.out
    whole = train("trainer.max_epochs=3", "name=whole", *overrides)
    (expected,) = whole.folder.glob("outputs/whole/*")
    assert differences(run, expected) == []
    one, other = (checkpoints.load(folder / "checkpoints" / "last.ckpt") for folder in (run, expected))
    assert same(one[ImageDataModule.__qualname__], other[ImageDataModule.__qualname__])


def test_a_moved_run_keeps_its_best_checkpoint(train: RunScript, run_script: RunScript) -> None:
    first = train("trainer.max_epochs=2", "optimizer=sgd", "optimizer.lr=0.01", "scheduler=constant", "test=false").run
    best = checkpoints.load(first / "checkpoints" / "best.ckpt")["global_step"]
    moved = first.rename(first.with_name("moved"))
    # From here on the network gets worse.
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


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_other_precisions_train(train: RunScript, precision: str) -> None:
    done = train(f"trainer.precision={precision}", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert record_of(done.run)["precision"] == precision
    assert metrics_of(done.run)["val/accuracy"] > 0.3


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


class Frozen(Callback):
    """Lets the first epochs change no weight."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.current_epoch < self.epochs:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 0.0


@pytest.mark.parametrize(("frozen", "expected"), [(3, 5), (9, 4)], ids=["improves again", "never improves"])
def test_early_stopping_decides_again_after_the_least_number_of_epochs(
    train: RunScript, monkeypatch: pytest.MonkeyPatch, frozen: int, expected: int
) -> None:
    original = build.build_callbacks
    monkeypatch.setattr(build, "build_callbacks", lambda cfg: [*original(cfg), Frozen(frozen)])
    options = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "monitor=val/loss")
    done = train(*options, "optimizer.weight_decay=0", "+trainer.min_epochs=4", "trainer.max_epochs=5", "test=false")
    assert done.status == 0, done.err
    assert metrics_of(done.run)["epochs"] == expected


def test_a_short_epoch_is_logged_once(train: RunScript) -> None:
    done = train("trainer.log_every_n_steps=50", "trainer.accumulate_grad_batches=4", "data.prune=0.4", "test=false")
    assert (done.status, done.err) == (0, "")
    assert [step for step, _ in curves(done.run)["training/loss_step"]] == [1, 3]  # an epoch has 6 batches and 2 steps


def test_overfitting_a_few_batches_learns_them(train: RunScript) -> None:
    done = train("trainer=overfit")
    assert done.status == 0, done.err
    assert float(rows_of(done.run)[-1]["train/accuracy"]) > 0.95
