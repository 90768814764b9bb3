"""Several processes of one run: real ones, as a user, torchrun or srun start them."""

import csv
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from kills import curves
from processes import QUIET, SCRIPT, STARTED, Started, family, start, wait_for

from fmnist.config.processes import REQUEUE
from fmnist.runs import checkpoints
from fmnist.runs.run import Run

GONE = 90.0  # seconds until all processes of a run have ended after one of them died


@pytest.fixture
def overrides(data_root: Path) -> list[str]:
    """A small training with unequal parts: 499 images in batches of 75, of which the last has 49."""
    return [
        "data=idx",
        f"data.root={data_root}",
        "data.val_size=101",
        "data.batch_size=75",
        "data.eval_batch_size=40",
        "model.channels=[4,8]",
        "trainer.log_every_n_steps=5",
        "trainer.precision=32-true",
        "pictures=none",
        "report=false",
    ]


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Whatever a test has started ends with it."""
    yield
    while STARTED:
        STARTED.pop().end()


def train(folder: Path, *overrides: str, **environment: str) -> Started:
    folder.mkdir(exist_ok=True)
    return start(folder, str(SCRIPT), *overrides, **environment)


def finished(process: Started) -> Started:
    """A process that has ended well."""
    assert process.status() == 0, "".join(process.err)
    return process


def only_run(folder: Path) -> Run:
    (config,) = folder.glob("outputs/*/*/config.yaml")
    return Run(config.parent)


def has_checkpoint(folder: Path) -> bool:
    return bool(list(folder.glob("outputs/*/*/checkpoints/last.ckpt")))


def rows(run: Run) -> list[dict[str, str]]:
    """The table of the epochs without what depends on the clock."""
    with run.history_file.open() as file:
        return [{key: value for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)]


def weights(run: Run) -> dict[str, torch.Tensor]:
    """Of the network; where they are averaged, also those behind."""
    checkpoint = checkpoints.load(run.last_checkpoint)
    found = checkpoints.network_weights(checkpoint)
    return found | checkpoint.get(checkpoints.CURRENT_KEY, {})


def distance(one: Run, other: Run) -> float:
    """The largest difference of two runs' weights and statistics."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def metrics(run: Run) -> dict[str, Any]:
    return {name: value for name, value in json.loads(run.metrics_file.read_text()).items() if "second" not in name}


PLAIN = ["augment=none", "model.dropout=0", "trainer.max_epochs=3", "trainer.max_steps=20"]


def test_two_processes_train_what_one_trains(tmp_path: Path, overrides: list[str], run_script: RunScript) -> None:
    shared_by_all = ["data.prune=0.4", "data.self_distillation=0.3"]  # losses and predictions of all images
    overrides = [*overrides, *PLAIN, *shared_by_all, "trainer.precision=64-true", "callbacks=ema"]
    one = run_script("train", *overrides, "trainer=cpu")
    assert one.status == 0, one.err
    two = finished(train(tmp_path / "two", *overrides, "trainer=ddp_cpu"))
    assert two.err == []
    said = "".join(two.out)
    assert "on 2 x CPU in 64-true" in said
    assert said.count("499 images to train on") == 1
    alone, shared = Run(one.run), only_run(tmp_path / "two")
    assert distance(alone, shared) < 1e-9
    for mine, other in zip(rows(alone), rows(shared), strict=True):
        assert {name: float(value or 0) for name, value in mine.items()} == pytest.approx(
            {name: float(value or 0) for name, value in other.items()}, rel=1e-5
        )
    for name in ("test/accuracy", "test/accuracy_per_class", "val/accuracy_per_class"):
        assert metrics(shared)[name] == metrics(alone)[name]
    assert shared.status == "finished"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "tolerance"),
    [
        # Where nothing has a kink: where a maximum or a ReLU turns over, single precision multiplies its rounding.
        (["optimizer=sgd", "model.pooling=average", "model.activation=gelu"], 1e-4),
        (["optimizer=adamw", "trainer.precision=64-true"], 1e-9),
        (["trainer.precision=64-true", "trainer.accumulate_grad_batches=3", "data.batch_size=18"], 1e-9),
        # Parts of one image and of none: 499 = 83 * 6 + 1.
        (["trainer.precision=64-true", "trainer.max_steps=84", "data.batch_size=6"], 1e-9),
        # Alternating flips, which must be the same in all processes.
        (["trainer.precision=64-true", "augment.flip=0.5", "augment.alternate=true"], 1e-9),
        # Losses and predictions of all images, which each process must know.
        (["trainer.precision=64-true", "data.prune=0.4", "data.self_distillation=0.3", "data.batch_size=20"], 1e-9),
        (["trainer.precision=64-true", "model=mlp", "loss=mean_squared_error", "~model.channels"], 1e-9),
    ],
)
def test_any_number_of_processes_trains_the_same(
    tmp_path: Path, overrides: list[str], choices: list[str], tolerance: float
) -> None:
    keys = {choice.split("=")[0] for choice in choices}
    if "~model.channels" in keys:
        choices = choices[:-1]
        keys.add("model.channels")
    given = [word for word in [*overrides, *PLAIN] if word.split("=")[0] not in keys]
    for devices in (1, 2, 3):
        finished(train(tmp_path / str(devices), *given, *choices, "trainer=cpu", f"trainer.devices={devices}"))
    alone = only_run(tmp_path / "1")
    for devices in ("2", "3"):
        shared = only_run(tmp_path / devices)
        assert distance(alone, shared) < tolerance
        for name in ("val/accuracy", "val/accuracy_per_class", "test/accuracy", "test/accuracy_per_class"):
            assert metrics(shared)[name] == metrics(alone)[name]
        accuracies = [[row[name] for name in row if "val/acc" in name] for row in rows(shared)]
        assert accuracies == [[row[name] for name in row if "val/acc" in name] for row in rows(alone)]


def start_long(folder: Path, overrides: list[str], devices: int, *more: str) -> Started:
    """A training without an end, once it has a checkpoint."""
    process = train(
        folder, *overrides, "trainer=ddp_cpu", f"trainer.devices={devices}", "trainer.max_epochs=100000", *more
    )
    wait_for(lambda: has_checkpoint(folder) or process.process.poll() is not None)
    assert process.process.poll() is None, "".join(process.err)
    return process


def workers_of(process: Started) -> list[int]:
    """The processes that train, rank zero first."""
    children = family(process.process.pid)
    return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["main", "rank 0", "rank 2"])
def test_when_a_process_dies_the_others_end_and_the_run_can_be_resumed(
    tmp_path: Path, overrides: list[str], victim: str
) -> None:
    process = start_long(tmp_path, overrides, 3)
    workers = workers_of(process)
    assert len(workers) == 3
    os.kill(process.process.pid if victim == "main" else workers[int(victim[-1])], signal.SIGKILL)
    assert process.status(GONE) == (-signal.SIGKILL if victim == "main" else 2)
    wait_for(lambda: not [pid for pid in workers if Path(f"/proc/{pid}").exists()], GONE)
    run = only_run(tmp_path)
    if victim != "main":
        (line,) = process.errors()
        assert line.startswith(f"error: {victim}, a process of this run, has ended")
        assert line.endswith(f"python scripts/train.py resume={run.folder}")
    assert "Traceback" not in "".join(process.err)
    done = Run(run.folder).epochs
    again = finished(train(tmp_path, f"resume={run.folder}", f"trainer.max_epochs={done + 2}", "trainer.devices=2"))
    assert f"resuming in {run.folder}" in "".join(again.out)
    assert "random numbers differ: 2 processes now, 3 before" in "".join(again.out)
    assert metrics(run)["epochs"] == done + 2
    finished(train(tmp_path, f"resume={run.folder}", f"trainer.max_epochs={done + 3}", "trainer=cpu"))
    assert metrics(run)["epochs"] == done + 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "fmnist"])
def test_processes_that_are_started_again_resume_from_the_last_checkpoint(
    tmp_path: Path, overrides: list[str], launcher: str
) -> None:
    long = [*overrides, "trainer=ddp_cpu", "trainer.max_epochs=40", "augment=flip_shift", "model.dropout=0.3"]
    whole = finished(train(tmp_path / "whole", *long))
    assert whole.err == []
    folder = tmp_path / "killed"
    folder.mkdir()
    if launcher == "torchrun":
        process = torchrun(folder, *long, processes=2, max_restarts=1)
    else:
        process = train(folder, *long, "max_restarts=1")
    wait_for(lambda: has_checkpoint(folder) or process.process.poll() is not None)
    children = family(process.process.pid)
    trainers = [pid for pid in children if "train.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill((trainers if launcher == "torchrun" else workers_of(process))[-1], signal.SIGKILL)
    finished(process)
    assert distance(only_run(folder), only_run(tmp_path / "whole")) == 0
    assert [row["epoch"] for row in rows(only_run(folder))] == [str(epoch) for epoch in range(41)]


DELETED = """
import os, sys
class Deleted:
    def __del__(self, write=os.write):
        write(2, b"deleted")
if "resource_tracker" not in " ".join(sys.orig_argv):
    deleted = Deleted()
"""
"""A `sitecustomize` with which a process says that Python deletes what it has imported, for seconds, when it ends."""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, REQUEUE)])
def test_ctrl_c_ends_all_after_the_same_step_and_the_resumed_run_is_exact(
    tmp_path: Path, overrides: list[str], number: int, status: int
) -> None:
    long = [*overrides, "trainer=ddp_cpu", "trainer.max_epochs=200", "augment=flip_shift", "model.dropout=0.3"]
    long.append("callbacks=ema")
    whole = finished(train(tmp_path / "whole", *long))
    (tmp_path / "sitecustomize.py").write_text(DELETED)
    process = train(tmp_path / "cut", *long, PYTHONPATH=f"{tmp_path}:{QUIET['PYTHONPATH']}")
    wait_for(lambda: has_checkpoint(tmp_path / "cut"))
    workers = workers_of(process)
    os.kill(process.process.pid, number)
    assert process.status(GONE) == status
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert process.err == []
    run = only_run(tmp_path / "cut")
    assert [line.strip() for line in process.out[-1:]] == [
        f"interrupted; resume with:  python scripts/train.py resume={run.folder}"
    ]
    assert 0 < checkpoints.load(run.last_checkpoint)["global_step"] < 420
    finished(train(tmp_path / "cut", f"resume={run.folder}"))
    assert whole.err == []
    assert distance(run, only_run(tmp_path / "whole")) == 0
    assert curves(run.folder)["training/loss_step"] == curves(only_run(tmp_path / "whole").folder)["training/loss_step"]
    for mine, other in zip(rows(run), rows(only_run(tmp_path / "whole")), strict=True):
        assert {name: float(value or 0) for name, value in mine.items()} == pytest.approx(
            {name: float(value or 0) for name, value in other.items()}, rel=1e-5
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def torchrun(
    folder: Path, *overrides: str, nodes: int = 1, processes: int = 1, port: int = 0, max_restarts: int = 0
) -> Started:
    """One machine's agent."""
    meeting = [f"--rdzv-endpoint=127.0.0.1:{port or free_port()}", "--rdzv-backend=c10d", "--rdzv-id=test"]
    numbers = [
        f"--nnodes={nodes}",
        f"--nproc-per-node={processes}",
        f"--max-restarts={max_restarts}",
        "--local-addr=127.0.0.1",
    ]
    return start(folder, "-m", "torch.distributed.run", *numbers, *meeting, str(SCRIPT), *overrides)


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_one_machine(tmp_path: Path, overrides: list[str]) -> None:
    process = torchrun(
        tmp_path, *overrides, "trainer=ddp_cpu", "trainer.max_epochs=2", "pictures=all", "report=true", processes=2
    )
    finished(process)
    assert sum(line.startswith("test: loss") for line in process.out) == 1
    assert metrics(only_run(tmp_path))["epochs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimzer=sgd", "optimzer"),
        ("model.dropout=2", "model.dropout=2"),
        ("trainer.devices=1", "trainer.devices=2 trainer.num_nodes=1"),
        ("--multirun", "--multirun"),
    ],
)
def test_under_torchrun_an_error_is_told_once(
    tmp_path: Path, overrides: list[str], override: str, message: str
) -> None:
    process = torchrun(tmp_path, *overrides, "trainer=ddp_cpu", override, processes=2)
    assert process.status(GONE) != 0
    (line,) = process.errors()
    assert message in line
    assert not list(tmp_path.glob("outputs/*/*/*"))


@pytest.mark.slow
def test_when_a_machine_dies_the_other_says_so_and_the_run_can_be_resumed(tmp_path: Path, overrides: list[str]) -> None:
    port = free_port()
    place = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2", "trainer.max_epochs=100000"]
    for _ in range(2):
        torchrun(tmp_path, *overrides, *place, nodes=2, port=port)
    wait_for(lambda: has_checkpoint(tmp_path) or any(agent.process.poll() is not None for agent in STARTED))
    first = next(agent for agent in STARTED if agent.out)
    (other,) = (agent for agent in STARTED if agent is not first)
    other.end()
    assert first.status(GONE) != 0
    run = only_run(tmp_path)
    (line,) = first.errors()
    assert line.startswith("error: another process of this run has ended; resume with:")
    done = checkpoints.load(run.last_checkpoint)["epoch"] + 1
    finished(train(tmp_path, f"resume={run.folder}", f"trainer.max_epochs={done + 1}", "trainer=ddp_cpu"))
    assert metrics(run)["epochs"] == done + 1


@pytest.mark.slow
def test_srun_starts_the_processes_of_two_machines(tmp_path: Path, overrides: list[str]) -> None:
    place = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2", "trainer.max_epochs=2"]
    common = {
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": "127.0.0.1,127.0.0.1",
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(free_port()),
    }
    for node in ("0", "1"):
        task = {**common, "SLURM_PROCID": node, "SLURM_NODEID": node}
        start(tmp_path, str(SCRIPT), *overrides, *place, **task)
    for one in STARTED:
        finished(one)
    assert STARTED[1].out == STARTED[1].err == []
    assert metrics(only_run(tmp_path))["epochs"] == 2
