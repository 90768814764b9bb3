"""The same command gives the same weights, whatever looks at the training, and whatever ends it on the way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript
from kills import same

from fmnist import checkpoints

RANDOM = ("model.dropout=0.3", "augment=flip_shift_erase")


def test_a_run_that_is_killed_at_any_moment_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    program = Path(__file__).parent / "kills.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(program.parent.parent)}
    command = [sys.executable, str(program), str(tmp_path), "--trials", "5", "--most", "2"]
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
        ["trainer.log_every_n_steps=1"],
        ["pictures=all"],
        ["pictures=default", "report=true"],
        ["test=false"],
        ["trainer.enable_progress_bar=true"],
        ["trainer.check_val_every_n_epoch=2"],
        ["trainer.limit_val_batches=1", "data.eval_batch_size=10"],
        ["checkpoint_every_n_steps=3"],
        ["checkpoint_every_minutes=0.0001"],
        ["stop_on_nan=false"],
        ["trainer.profiler=simple"],
        ["trainer.deterministic=true"],
        ["monitor=val/loss"],
    ],
    ids=lambda words: " ".join(words),
)
def test_what_only_looks_changes_no_weight(train: RunScript, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = last_state(train(*RANDOM, "name=plain"), "plain")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)  # for the progress bar
    looked_at = last_state(train(*RANDOM, "name=other", *words), "other")
    networks = [{name: state[name] for name in state if name.startswith("network.")} for state in (plain, looked_at)]
    assert same(*networks)
