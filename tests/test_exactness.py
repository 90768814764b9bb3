"""The same command gives the same weights, whatever looks at the training, and whatever ends it on the way."""

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
from kills import curves
from kills import equal as same

from fmnist.runs import checkpoints

RANDOM = ("model.dropout=0.3", "augment=flip_shift_erase")


def test_a_run_that_is_killed_at_any_moment_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    program = Path(__file__).parent / "kills.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(program.parent.parent)}
    command = [sys.executable, str(program), str(tmp_path), "--trials", "5"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found["tried"] == 5
    assert found["lost"] == {}
    assert done.returncode == 0


def last_state(done: Done, name: str) -> dict[str, torch.Tensor]:
    """The network and the metrics in a run's last checkpoint."""
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


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_same_weights_twice(train: RunScript) -> None:
    large = ("model.channels=[32,64]", "data.batch_size=100", "trainer.max_epochs=1", "test=false", *RANDOM)
    one, other = (last_state(train(*large, f"name={name}"), name) for name in "ab")
    assert same(one, other)


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.log_every_n_steps=1", "pictures=all", "trainer.profiler=simple"],
        ["pictures=default", "report=true", "monitor=val/loss"],
        ["trainer.check_val_every_n_epoch=2", "test=false", "trainer.enable_progress_bar=false", "stop_on_nan=false"],
        ["trainer.limit_val_batches=1", "data.eval_batch_size=10", "trainer.deterministic=true"],
        ["checkpoint_every_n_steps=3", "checkpoint_every_minutes=0.0001"],
    ],
    ids=lambda words: " ".join(words),
)
def test_what_only_looks_changes_no_weight(train: RunScript, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = last_state(train(*RANDOM, "name=plain"), "plain")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)  # for the progress bar
    looked_at = last_state(train(*RANDOM, "name=other", *words), "other")
    networks = [{name: state[name] for name in state if name.startswith("network.")} for state in (plain, looked_at)]
    assert same(*networks)


def run_of(done: Done) -> Path:
    assert done.status == 0, done.err
    return done.run


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(train: RunScript, run_script: RunScript) -> None:
    run = run_of(train(*RANDOM))
    whole = checkpoints.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    resumed = run_script("train", f"resume={run}", "trainer.max_epochs=2")
    assert resumed.status == 0, resumed.err
    (line,) = resumed.err.splitlines()
    assert line.startswith(f"{last} is not a readable checkpoint")
    assert line.endswith("resuming from the one before, previous.ckpt")
    assert f"resuming in {run} from step 10" in resumed.out
    assert same(checkpoints.load(last)["state_dict"], whole)


def test_what_was_cut_off_before_its_first_checkpoint_begins_anew(train: RunScript, run_script: RunScript) -> None:
    run = run_of(train(*RANDOM, "checkpoint_every_n_steps=4"))
    whole = checkpoints.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    (run / "checkpoints" / ".last.ckpt.123").write_bytes(b"half")
    (run / "run.json").write_text((run / "run.json").read_text().replace("finished", "running"))
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert f"restarting in {run}" in resumed.out
    assert same(checkpoints.load(run / "checkpoints" / "last.ckpt")["state_dict"], whole)
    assert {file.name for file in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    shown = curves(run)
    assert [step for step, _ in shown["val/loss"]] == [0, 9, 19]
    assert [step for step, _ in shown["train/loss_step"]] == [4, 9, 14, 19]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["checkpoint_every_n_steps=4"], [4, 8, 10, 12, 16, 20]),
        (["checkpoint_every_minutes=1e-9", "trainer.max_epochs=1"], [*range(1, 11)]),
        (["checkpoint_every_n_steps=1", "trainer.accumulate_grad_batches=4"], [1, 2, 3, 4, 5, 6]),
        (["trainer.max_epochs=3"], [10, 20, 30]),
    ],
)
def test_checkpoints_come_after_each_epoch_and_as_often_as_asked(
    train: RunScript, words: list[str], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    original = checkpoints.AtomicCheckpointIO.save_checkpoint

    def save(self: checkpoints.AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **rest: Any) -> None:
        original(self, checkpoint, path, **rest)
        if Path(path).name == "last.ckpt":
            saved.append(checkpoints.load(Path(path))["global_step"])

    monkeypatch.setattr(checkpoints.AtomicCheckpointIO, "save_checkpoint", save)
    assert train(*words, "test=false").status == 0
    assert saved == steps


def diverging(train: RunScript, *words: str) -> Done:
    return train("optimizer=momentum", "optimizer.lr=1e20", "scheduler=constant", *words)


def test_a_loss_that_is_no_number_ends_the_run_before_its_step(train: RunScript, tmp_path: Path) -> None:
    done = diverging(train, "checkpoint_every_n_steps=1")
    done.assert_refused("the loss became", "in step 2 (epoch 1), at a learning rate of 1e+20", "stop_on_nan=false")
    (run,) = tmp_path.glob("outputs/train/*")
    last = run / "checkpoints" / "last.ckpt"
    assert f"the last good checkpoint is {last}" in done.err
    state = checkpoints.load(last)
    assert state["global_step"] == 1
    assert all(value.isfinite().all() for name, value in state["state_dict"].items() if name.startswith("network."))
    assert json.loads((run / "run.json").read_text())["status"] == "failed"


def test_a_device_that_is_not_waited_for_names_the_same_step(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmnist.training.callbacks.divergence.SYNCHRONOUS", set())
    done = diverging(train)
    error = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "the loss became infinite or NaN in step 2 (epoch 1)" in error[0]
    assert not [*done.folder.glob("outputs/train/*/checkpoints/*")]


def test_weights_that_are_no_numbers_reach_no_checkpoint(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist.training.callbacks import History

    def poison(_: History, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if rest and trainer.global_step == 20:
            pl_module.network.head[0].weight.data[0, 0] = torch.nan

    monkeypatch.setattr(History, "on_train_batch_end", poison)
    done = train("trainer.check_val_every_n_epoch=5", "trainer.max_epochs=3")
    done.assert_refused("head.0.weight became infinite or NaN in step 20 (epoch 2)", "the last good checkpoint is")
    (last,) = done.folder.glob("outputs/train/*/checkpoints/last.ckpt")
    assert checkpoints.load(last)["global_step"] == 10


def test_a_run_may_go_on_without_numbers(train: RunScript) -> None:
    assert diverging(train, "stop_on_nan=false", "test=false").status == 0
