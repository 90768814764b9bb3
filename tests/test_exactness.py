"""The same command gives the same weights, whatever observes or interrupts the training, and no NaN is saved."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Done, RunScript
from kills import curves, differences, untimed_rows
from kills import equal as same
from lightning.pytorch.callbacks import Timer

from fmnist.runs import checkpoints

RANDOM = ("model.dropout=0.3", "augment=flip_shift_erase")


@pytest.mark.slow
def test_runs_that_are_killed_at_any_moment_end_as_without_the_kill(tmp_path: Path) -> None:
    program = Path(__file__).parent / "kills.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(program.parent.parent)}
    command = [sys.executable, str(program), str(tmp_path), "--trials", "3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found["tried"] == 3
    assert found["lost"] == {}
    assert done.returncode == 0


def last_state(done: Done, name: str) -> dict[str, torch.Tensor]:
    """Return the network and the metrics in a run's last checkpoint."""
    assert done.status == 0, done.err
    (file,) = done.folder.glob(f"outputs/{name}/*/checkpoints/last.ckpt")
    state: dict[str, torch.Tensor] = checkpoints.load(file)["state_dict"]
    return state


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_a_seed_gives_the_same_weights_on_two_threads_and_another_seed_others(train: RunScript) -> None:
    large = ("model.channels=[32,64]", "data.batch_size=100", "trainer.max_epochs=1", "test=false")

    def trained(name: str, seed: int) -> dict[str, torch.Tensor]:
        return last_state(train(*large, *RANDOM, f"name={name}", f"seed={seed}"), name)

    one, again, other = trained("a", 1), trained("b", 1), trained("c", 2)
    assert same(one, again)
    assert not torch.equal(one["network.blocks.0.weight"], other["network.blocks.0.weight"])


OBSERVERS = {
    "logs, profiler and checkpoints": [
        *("trainer.log_every_n_steps=1", "pictures=all", "trainer.profiler=simple"),
        *("checkpoint_every_n_steps=3", "checkpoint_every_minutes=0.0001"),
    ],
    "report and evaluation": [
        *("pictures=default", "report=true", "monitor=val/loss", "trainer.deterministic=true"),
        *("trainer.limit_val_batches=1", "data.eval_batch_size=10"),
    ],
    "less": [
        *("trainer.check_val_every_n_epoch=2", "test=false"),
        *("trainer.enable_progress_bar=false", "stop_on_nan=false"),
    ],
}


@pytest.mark.slow
def test_observers_change_no_weight(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)  # for the progress bar
    networks = {}
    for name, overrides in {"none": [], **OBSERVERS}.items():
        done = train(*RANDOM, f'name="{name}"', *overrides)
        assert ("run_training_epoch" in done.out) == ("trainer.profiler=simple" in overrides)
        state = last_state(done, name)
        networks[name] = {key: value for key, value in state.items() if key.startswith("network.")}
    assert [name for name, network in networks.items() if not same(network, networks["none"])] == []


def raise_error() -> None:
    raise RuntimeError("a callback has failed")


def test_a_run_that_ends_in_every_way_and_is_extended_ends_as_one_that_was_never_touched(
    train: RunScript, run_script: RunScript, at_batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch has 10 batches and 5 steps."""
    options = (*RANDOM, "scheduler=constant", "test=false", "trainer.accumulate_grad_batches=2")
    stopping = (
        "callbacks=early_stopping",
        "callbacks.early_stopping.min_delta=1",
        "callbacks.early_stopping.patience=2",
    )
    first = train(*options, *stopping, "name=extended", "trainer.max_epochs=9", "trainer.max_steps=3")
    run = first.run

    def extend(*changes: str) -> Done:
        done = run_script("train", f"resume={run}", *changes)
        assert done.status == 0, done.err
        assert "was called before" not in done.err
        return done

    def state() -> tuple[list[str], int]:
        epochs = [row["epoch"] for row in untimed_rows(run / "metrics.csv")]
        return epochs, checkpoints.load(run / "checkpoints" / "last.ckpt")["global_step"]

    assert state() == (["0", "1"], 3)  # trainer.max_steps, within an epoch
    assert "is extended" in extend("trainer.max_steps=5").out
    assert state() == (["0", "1"], 5)  # trainer.max_steps, at the end of an epoch
    undo = at_batch(14, raise_error)
    with pytest.raises(RuntimeError, match="a callback has failed"):
        extend("trainer.max_steps=-1")
    undo.undo()
    assert state() == (["0", "1"], 5)
    undo = at_batch(17, lambda: monkeypatch.setattr(Timer, "time_elapsed", lambda *_: 3600.0))
    extend("trainer.max_time=00:01:00:00")
    undo.undo()
    assert state() == (["0", "1", "2"], 9)  # after the step of batch 18, although batch 17 was over the time
    refused = run_script("train", f"resume={run}", "trainer.max_epochs=12")
    refused.assert_refused("trainer.max_time: the run has used it up")
    extend("trainer.max_time=null")
    assert state() == (["0", "1", "2", "3"], 15)  # early stopping
    extend("trainer.max_epochs=4")
    run_script("train", f"resume={run}", "trainer.max_epochs=4").assert_refused(
        "trainer.max_epochs=4: the run has done 4"
    )

    whole = train(*options, "name=whole", "trainer.max_epochs=4")
    (expected,) = whole.folder.glob("outputs/whole/*")
    # At the end of trainer.max_time:
    validated_within = ("curve accuracy/val", "curve loss/val", "curve val_accuracy_per_class/")
    assert [found for found in differences(run, expected) if not found.startswith(validated_within)] == []


def test_resuming_from_a_damaged_checkpoint_takes_the_previous_one(finished_run: Path, run_script: RunScript) -> None:
    last = finished_run / "checkpoints" / "last.ckpt"
    whole = checkpoints.load(last)["state_dict"]
    last.write_bytes(last.read_bytes()[:-100])
    resumed = run_script("train", f"resume={finished_run}", "trainer.max_epochs=2")
    assert resumed.status == 0, resumed.err
    (line,) = resumed.err.splitlines()
    assert line.startswith(f"{last} is not a readable checkpoint")
    assert line.endswith("resuming from the one before, previous.ckpt")
    assert f"resuming in {finished_run} from step 10" in resumed.out
    assert same(checkpoints.load(last)["state_dict"], whole)


def test_a_run_that_was_killed_before_its_first_checkpoint_restarts(finished_run: Path, run_script: RunScript) -> None:
    folder = finished_run / "checkpoints"
    whole = checkpoints.load(folder / "last.ckpt")["state_dict"]
    for file in folder.iterdir():
        file.unlink()
    (folder / ".last.ckpt.123").write_bytes(b"half")
    record = finished_run / "run.json"
    record.write_text(record.read_text().replace("finished", "running"))
    resumed = run_script("train", f"resume={finished_run}")
    assert resumed.status == 0, resumed.err
    assert f"restarting in {finished_run}" in resumed.out
    assert same(checkpoints.load(folder / "last.ckpt")["state_dict"], whole)
    assert {file.name for file in folder.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    shown = curves(finished_run)
    assert [step for step, _ in shown["loss/val"]] == [0, 9, 19]
    assert [step for step, _ in shown["training/loss_step"]] == [4, 9, 14, 19]


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["checkpoint_every_n_steps=4"], [4, 8, 10, 12, 16, 20]),
        (["checkpoint_every_minutes=1e-9", "trainer.max_epochs=1"], [*range(1, 11)]),
        (["checkpoint_every_n_steps=1", "trainer.accumulate_grad_batches=4"], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_checkpoints_are_saved_after_each_epoch_and_as_often_as_configured(
    train: RunScript, overrides: list[str], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    original = checkpoints.AtomicCheckpointIO.save_checkpoint

    def save(self: checkpoints.AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **rest: Any) -> None:
        original(self, checkpoint, path, **rest)
        if Path(path).name == "last.ckpt":
            saved.append(checkpoints.load(Path(path))["global_step"])

    monkeypatch.setattr(checkpoints.AtomicCheckpointIO, "save_checkpoint", save)
    assert train(*overrides, "test=false").status == 0
    assert saved == steps


def diverging(train: RunScript, *overrides: str) -> Done:
    return train("optimizer=momentum", "optimizer.lr=1e20", "scheduler=constant", *overrides)


def test_a_loss_of_nan_ends_the_run_before_its_step(train: RunScript, tmp_path: Path) -> None:
    done = diverging(train, "checkpoint_every_n_steps=1")
    done.assert_refused("the loss became", "in step 2 (epoch 1), at a learning rate of 1e+20", "stop_on_nan=false")
    (run,) = tmp_path.glob("outputs/train/*")
    last = run / "checkpoints" / "last.ckpt"
    assert f"the last good checkpoint is {last}" in done.err
    state = checkpoints.load(last)
    assert state["global_step"] == 1
    assert all(value.isfinite().all() for name, value in state["state_dict"].items() if name.startswith("network."))
    assert json.loads((run / "run.json").read_text())["status"] == "failed"


def test_an_asynchronous_device_reports_the_same_step(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmnist.training.callbacks.divergence.SYNCHRONOUS", set())
    done = diverging(train)
    error = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "the loss became infinite or NaN in step 2 (epoch 1)" in error[0]
    assert not [*done.folder.glob("outputs/train/*/checkpoints/*")]


def test_weights_of_nan_reach_no_checkpoint(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist.training.callbacks import History

    def poison(_: History, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if rest and trainer.global_step == 20:
            pl_module.network.head[0].weight.data[0, 0] = torch.nan

    monkeypatch.setattr(History, "on_train_batch_end", poison)
    done = train("trainer.check_val_every_n_epoch=5", "trainer.max_epochs=3")
    done.assert_refused("head.0.weight became infinite or NaN in step 20 (epoch 2)", "the last good checkpoint is")
    (last,) = done.folder.glob("outputs/train/*/checkpoints/last.ckpt")
    assert checkpoints.load(last)["global_step"] == 10


def test_stop_on_nan_false_continues(train: RunScript) -> None:
    assert diverging(train, "stop_on_nan=false", "test=false").status == 0
