"""Training by several processes, as far as one process can test it."""

import copy
import os
import signal
import socket
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import RunScript
from kills import equal as same
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf
from tensorboard.backend.event_processing import event_accumulator
from torch.distributed import HashStore

from fmnist.config.trainer import choose_strategy
from fmnist.data.info import FASHION_MNIST
from fmnist.models import CNN
from fmnist.training import fit, srun
from fmnist.training.callbacks import Interruption, RandomStates, TrainingInterrupted, pictures
from fmnist.training.distributed import launch
from fmnist.training.rank_info import OWN_LAUNCHER, RankInfo, check_processes, check_sweep, find_rank
from fmnist.training.strategies import WeightedDDPStrategy, WeightedFSDPStrategy
from fmnist.training.sync_batch_norm import SyncedBatchNorm, synced

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "LOCAL_WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",  # counted across the machines
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
}
SBATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}
SALLOC = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "node1"}
INTERACTIVE_STEP = {**SRUN, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}
LEFT_BEHIND = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "SLURM_PROCID": "1"}


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, RankInfo()),
        ({**TORCHRUN, OWN_LAUNCHER: "1"}, RankInfo(5, 8, 1, 1, 2, "fmnist", job="x")),
        (TORCHRUN, RankInfo(5, 8, 1, 1, 2, "torchrun", job="x")),
        ({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"}, RankInfo(5, 8, 1, 1, 2, "torchrun", 2, "x")),
        (SRUN, RankInfo(5, 8, 1, 1, 2, "srun")),
        (SBATCH, RankInfo()),  # the script itself, which is one process
        (SALLOC, RankInfo()),
        (INTERACTIVE_STEP, RankInfo()),  # the shell of salloc, where the site has it run in a step
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, RankInfo()),
        ({name: value for name, value in SRUN.items() if name != "SLURM_STEP_NODELIST"}, RankInfo()),
        (LEFT_BEHIND, RankInfo()),
        ({**SRUN, **TORCHRUN}, RankInfo(5, 8, 1, 1, 2, "torchrun", job="x")),  # which srun starts on each machine
    ],
)
def test_the_rank_is_read_from_the_environment(
    environment: dict[str, str], rank: RankInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_rank() == rank


def test_launched_processes_must_be_as_many_as_the_config_says(monkeypatch: pytest.MonkeyPatch) -> None:
    check_processes(3, 1)
    with pytest.raises(ValueError, match="num_nodes=2: torchrun or srun"):
        check_processes(1, 2)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    check_processes(4, 2)
    for devices, nodes in ((1, 1), (8, 1), (2, 2), (2, 4)):
        with pytest.raises(ValueError, match=r"torchrun has started 8 processes, which is trainer.devices=4 .*nodes=2"):
            check_processes(devices, nodes)


def test_several_processes_are_refused_where_another_launcher_may_have_started_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in LEFT_BEHIND.items():
        monkeypatch.setenv(name, value)
    check_processes(1, 1)
    with pytest.raises(ValueError, match=r"trainer.devices=2 .* RANK=1 WORLD_SIZE=2 LOCAL_RANK=1, which torchrun has"):
        check_processes(2, 1)


@pytest.mark.parametrize("environment", [LEFT_BEHIND, SRUN])
def test_one_process_is_one_process_wherever_it_runs(
    environment: dict[str, str], train: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as Lightning reads it when it is imported
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    done = train("trainer.max_epochs=1", "test=false")
    assert (done.status, done.err) == (0, "")
    assert ("each of the 8 that srun has started is a run of its own" in done.out) == (environment is SRUN)
    events = event_accumulator.EventAccumulator(str(done.run)).Reload()
    assert "accuracy/val" in events.Tags()["scalars"]


@pytest.mark.parametrize(("node", "shown"), [("0", 1), ("1", 0)])
def test_other_processes_than_srun_has_started_are_refused_before_any_waits(
    node: str, shown: int, train: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SRUN, "SLURM_LOCALID": "0", "SLURM_NODEID": node}.items():
        monkeypatch.setenv(name, value)
    done = train("trainer=ddp_cpu", "trainer.devices=3", "trainer.num_nodes=2")
    assert done.status == 2
    assert done.err.count("trainer.num_nodes=2: srun has started 8 processes, which is trainer.devices=4") == shown
    assert len(done.err.splitlines()) == shown
    assert not (done.folder / "outputs").exists()


def test_a_port_that_is_taken_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        for name, value in {**SRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=f"MASTER_PORT={port}: another program on 127.0.0.1 uses it"):
            srun.open_store(RankInfo(0, 8, launcher="srun"))


def test_each_step_of_the_jobs_on_a_machine_has_a_port_of_its_own() -> None:
    assert len({srun.default_port(job, step) for job in range(7, 27) for step in range(10)}) == 200


def test_rank_zero_says_after_some_seconds_whom_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(srun, "PATIENCE", 0.2)
    store, rank = HashStore(), RankInfo(0, 4, launcher="srun")
    for came in ("0", "2"):
        store.set(came, "")
    late = threading.Timer(0.6, lambda: [store.set(other, "") for other in ("1", "3")])
    late.start()
    srun.wait_for_others(store, rank)
    late.join()
    (line,) = caplog.messages
    assert line.startswith(
        "waiting for rank 1, 3 of the 4 processes that srun has started (job 7, step 0 on node[1-2])"
    )
    caplog.clear()
    srun.wait_for_others(store, rank)
    assert not caplog.records
    monkeypatch.setattr(srun, "TIMEOUT", timedelta(seconds=0.3))
    with pytest.raises(ConnectionError, match="rank 4 of srun's 5 processes hasn't come"):
        srun.wait_for_others(store, RankInfo(0, 5, launcher="srun"))


def test_jobs_of_a_sweep_must_be_single_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_sweep()
    check_sweep(1)
    with pytest.raises(ValueError, match="a job of 2 processes"):
        check_sweep(2)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="each of the 8 processes of srun"):
        check_sweep()


def test_synced_batch_norms_have_the_state_of_batch_norms_and_the_same_outputs_in_one_process() -> None:
    torch.manual_seed(0)
    network, images = CNN((1, 28, 28), 10, channels=[4, 8]), torch.randn(5, 1, 28, 28)
    made = synced(copy.deepcopy(network))
    assert sum(isinstance(module, SyncedBatchNorm) for module in made.modules()) == 2
    assert torch.equal(made(images), network(images))
    assert same(made.state_dict(), network.state_dict())
    assert synced(made) is made


def node(**values: object) -> OmegaConf:
    return OmegaConf.create({"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", **values})


def test_several_processes_train_with_ddp_unless_fsdp_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_strategy(node()) == choose_strategy(node(strategy="ddp")) == "auto"
    assert type(choose_strategy(node(devices=2))) is WeightedDDPStrategy
    assert type(choose_strategy(node(num_nodes=2))) is WeightedDDPStrategy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for devices in (-1, "auto", [0, 2], 3):
        gpus = node(accelerator="gpu", devices=devices, strategy="fsdp")
        strategy = choose_strategy(gpus)
        assert type(strategy) is WeightedFSDPStrategy
        assert strategy._state_dict_type == "full"
    assert choose_strategy(node(accelerator="gpu", devices=[2])) == "auto"


def stub(rank: int = 0, size: int = 2, step: int = 7) -> Any:
    """Return the attributes of a Trainer that callbacks read."""
    datamodule = SimpleNamespace(dataset=FASHION_MNIST)
    return SimpleNamespace(global_rank=rank, world_size=size, global_step=step, datamodule=datamodule)


def drawn(state: RandomStates, trainer: Any) -> list[float]:
    """Return the first random numbers of a training."""
    state.setup(trainer, None, "fit")
    state.on_train_start(trainer, None)
    return torch.rand(3).tolist()


def test_random_numbers_of_a_process_depend_on_seed_step_and_rank() -> None:
    places = [(seed, rank, step) for seed in (0, 1) for rank in (0, 1) for step in (0, 7)]
    numbers = {place: drawn(RandomStates(place[0]), stub(place[1], 2, place[2])) for place in places}
    assert len({tuple(values) for values in numbers.values()}) == len(places)
    torch.rand(5)
    assert {place: drawn(RandomStates(place[0]), stub(place[1], 2, place[2])) for place in places} == numbers


def test_random_numbers_resume_in_as_many_processes_and_restart_in_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    states, expected = [], []
    for rank in (0, 1):
        torch.manual_seed(rank + 50)
        states.append({"cpu": torch.get_rng_state(), "cuda": None})
        expected.append(torch.rand(3).tolist())
    for rank in (0, 1):
        again = RandomStates(3)
        again.load_state_dict({"ranks": states})
        assert drawn(again, stub(rank)) == expected[rank]
    assert not caplog.records
    for size in (1, 3):
        other = RandomStates(3)
        other.load_state_dict({"ranks": states})
        assert drawn(other, stub(0, size)) == drawn(RandomStates(3), stub(0, 2))
    assert [record.message for record in caplog.records] == [
        f"random numbers differ: {size} processes now, 2 before" for size in (1, 3)
    ]


def test_a_signal_that_comes_while_processes_agree_is_not_lost(tmp_path: Path) -> None:
    interruption, trainer = Interruption(tmp_path / "last.ckpt"), stub()

    def agree(requested: bool, **_: bool) -> bool:
        if not interruption.requested:
            interruption._on_signal(signal.SIGTERM, None)
        return requested

    trainer.strategy = SimpleNamespace(reduce_boolean_decision=agree)
    interruption.on_train_epoch_start(trainer, None)
    with pytest.raises(TrainingInterrupted) as asked:
        interruption.on_train_epoch_start(trainer, None)
    assert asked.value.by_system


def test_pictures_have_the_logits_of_all_processes_in_the_images_order(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.arange(70.0).view(7, 10)  # two batches: of four images and of three
    parts = [[logits[:2], logits[4:6]], [logits[2:4], logits[6:]]]
    monkeypatch.setattr(pictures, "gather", lambda _: parts)
    drawing = pictures.Pictures(1, 4, True, False, False, False, False, False, 0)
    assert torch.equal(drawing._gather_logits(stub()), logits)
    drawing._logits = parts[0]
    assert torch.equal(drawing._gather_logits(stub(size=1)), torch.cat(parts[0]))


@pytest.mark.slow
def test_launched_processes_return_the_value_of_rank_zero_and_raise_the_first_error() -> None:
    assert launch(multiplied, 2, 21) == 42
    with pytest.raises(ValueError, match="rank 1 of 2 refuses 1"):
        launch(refused, 2, 1)


def multiplied(value: int) -> int:
    """A worker: the value times the number of processes."""
    total = torch.tensor(value)
    torch.distributed.all_reduce(total)
    return int(total)


def refused(rank: int) -> None:
    """A worker that fails in one process while the others wait for it."""
    if find_rank().rank == rank:
        raise ValueError(f"rank {rank} of {find_rank().world_size} refuses {rank}")
    torch.distributed.barrier()


def test_processes_with_different_data_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datamodule = SimpleNamespace(hashes={"train-images": "a"}, root=tmp_path)
    training = SimpleNamespace(trainer=SimpleNamespace(world_size=2), history=None, datamodule=datamodule)
    monkeypatch.setattr(fit, "gather", lambda hashes: [hashes, {"train-images": "b"}])
    with pytest.raises(ValueError, match=f"^data.root={tmp_path}: its files must be the same on all machines$"):
        fit.fit(training, None)
