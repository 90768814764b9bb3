"""What several processes of a run need, as far as one process can tell."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from omegaconf import OmegaConf
from torch import nn

from fmnist.config.trainer import choose_strategy
from fmnist.models import CNN
from fmnist.training.callbacks import Interruption, RandomStates, TrainingInterrupted, pictures
from fmnist.training.ranks import group, lifeline
from fmnist.training.ranks.place import CHILD, Place, check_processes, check_sweep, find_place
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
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",  # counted across the machines
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
}
SBATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place()),
        ({CHILD: "1/3"}, Place(1, 3, 1, 0, 1, "rank zero")),
        (TORCHRUN, Place(5, 8, 1, 1, 2, "torchrun")),
        (SRUN, Place(5, 8, 1, 1, 2, "srun")),
        (SBATCH, Place()),  # the script itself, which is one process
        ({**SBATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Place()),
        ({**SRUN, **TORCHRUN}, Place(5, 8, 1, 1, 2, "torchrun")),  # which srun has started on each machine
    ],
)
def test_the_environment_says_where_a_process_stands(
    environment: dict[str, str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_place() == place


def test_processes_have_to_be_as_many_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    check_processes(3, 1)
    with pytest.raises(ValueError, match="num_nodes=2: torchrun or srun"):
        check_processes(1, 2)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    check_processes(4, 2)
    for devices, nodes in ((1, 1), (8, 1), (2, 2), (2, 4)):
        with pytest.raises(ValueError, match=r"torchrun has started 8 processes, which is trainer.devices=4 .*nodes=2"):
            check_processes(devices, nodes)


def test_a_sweep_is_of_single_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_sweep()
    check_sweep(1)
    with pytest.raises(ValueError, match="a job of 2 processes"):
        check_sweep(2)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="each of the 8 processes of srun"):
        check_sweep()


def test_synced_batch_norms_have_the_state_of_batch_norms_and_do_alone_what_they_do() -> None:
    torch.manual_seed(0)
    network = CNN((1, 28, 28), 10, channels=[4, 8])
    images = torch.randn(5, 1, 28, 28)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network(images)
    after = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(before)
    parameters = list(network.parameters())
    made = synced(network)
    assert [type(module) for module in made.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)] == [
        SyncedBatchNorm,
        SyncedBatchNorm,
    ]
    assert all(mine is its for mine, its in zip(made.parameters(), parameters, strict=True))
    assert torch.equal(made(images), expected)
    assert {name: value.tolist() for name, value in made.state_dict().items()} == {
        name: value.tolist() for name, value in after.items()
    }
    assert synced(made) is made


def node(**values: object) -> OmegaConf:
    return OmegaConf.create({"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", **values})


def test_several_processes_work_together_by_ddp_unless_fsdp_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_strategy(node()) == choose_strategy(node(strategy="ddp")) == "auto"
    assert type(choose_strategy(node(devices=2))) is DDPStrategy
    assert type(choose_strategy(node(num_nodes=2))) is DDPStrategy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for devices in (-1, "auto", [0, 2], 3):
        gpus = node(accelerator="gpu", devices=devices, strategy="fsdp")
        strategy = choose_strategy(gpus)
        assert type(strategy) is FSDPStrategy
        assert strategy._state_dict_type == "full"
    assert choose_strategy(node(accelerator="gpu", devices=[2])) == "auto"


Ended = list[tuple[int, bool]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[lifeline.Lifelines, Callable[[int], lifeline.Connection], Ended]:
    """Rank zero's lifelines, a way to connect to them, and what both ends are told of their ends."""
    monkeypatch.setattr(lifeline, "BEAT", 0.2)
    monkeypatch.setattr(lifeline, "SILENCE", 2.5)
    ended: Ended = []

    def note(rank: int, goodbye: bool) -> None:
        ended.append((rank, goodbye))

    first = lifeline.Lifelines("127.0.0.1", note)

    def connect(rank: int) -> lifeline.Connection:
        made = lifeline.connect("127.0.0.1", first.port, first.token, rank, note)
        eventually(lambda: rank in first.connections)
        return made

    return first, connect, ended


def eventually(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_connection_that_breaks_is_a_process_lost(lines) -> None:
    first, connect, ended = lines
    other = connect(2)
    time.sleep(0.5)
    assert ended == []
    other._stream.shutdown(socket.SHUT_RDWR)  # as the system does for a process that is killed
    eventually(lambda: (2, False) in ended and (0, False) in ended)
    first.say_goodbye()


def test_one_that_says_goodbye_is_not(lines) -> None:
    first, connect, ended = lines
    other = connect(1)
    other.say_goodbye()
    other._stream.shutdown(socket.SHUT_RDWR)
    eventually(lambda: (1, True) in ended and len(ended) == 2)
    first.say_goodbye()


def test_silence_is_a_process_lost(lines) -> None:
    first, _, ended = lines
    with socket.create_connection(("127.0.0.1", first.port)) as silent:  # as a machine without power
        silent.sendall(f"{first.token} 3".encode())
        begin = time.monotonic()
        eventually(lambda: (3, False) in ended)
        assert time.monotonic() - begin > 2
    first.say_goodbye()


def test_a_stranger_is_no_process_of_the_run(lines) -> None:
    first, _, ended = lines
    for word in (b"hello 1", b"", b"\xff\xfe"):
        with socket.create_connection(("127.0.0.1", first.port)) as stranger:
            stranger.sendall(word)
            stranger.shutdown(socket.SHUT_WR)
            time.sleep(0.3)
    assert first.connections == {}
    assert ended == []
    first.say_goodbye()


def test_threads_of_lifelines_end(lines) -> None:
    first, connect, ended = lines
    before = threading.active_count() - 1  # the door's
    other = connect(1)
    first.say_goodbye()
    other.say_goodbye()
    other._stream.shutdown(socket.SHUT_RDWR)
    eventually(lambda: len(ended) == 2 and threading.active_count() <= before)


def test_the_page_says_what_to_type() -> None:
    page = (Path(__file__).parent.parent / "docs" / "scale.md").read_text()
    for word in ("trainer=ddp_cpu", "trainer=ddp", "trainer=fsdp", "torchrun", "srun", "resume="):
        assert word in page


def stub(rank: int = 0, size: int = 2, step: int = 7) -> Any:
    """As much of a Trainer as callbacks ask."""
    return SimpleNamespace(global_rank=rank, world_size=size, global_step=step)


def drawn(state: RandomStates, trainer: Any) -> list[float]:
    """The first numbers of a training."""
    state.setup(trainer, None, "fit")
    state.on_train_start(trainer, None)
    return torch.rand(3).tolist()


def test_each_process_has_random_numbers_of_its_own_that_seed_step_and_rank_give() -> None:
    places = [(seed, rank, step) for seed in (0, 1) for rank in (0, 1) for step in (0, 7)]
    numbers = {place: drawn(RandomStates(place[0]), stub(place[1], 2, place[2])) for place in places}
    assert len({tuple(values) for values in numbers.values()}) == len(places)
    torch.rand(5)
    assert {place: drawn(RandomStates(place[0]), stub(place[1], 2, place[2])) for place in places} == numbers


def test_random_numbers_go_on_in_as_many_processes_and_are_drawn_anew_in_others(
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
        f"random numbers are drawn anew: {size} processes now, 2 before" for size in (1, 3)
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
    assert torch.equal(drawing._gathered(stub()), logits)
    drawing._logits = parts[0]
    assert torch.equal(drawing._gathered(stub(size=1)), torch.cat(parts[0]))


def test_a_mistake_of_one_process_is_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "gather", lambda _: [None, "rank 1 on there: no data"])
    with pytest.raises(ValueError, match="rank 1 on there: no data"):
        group.Ranks(Place(0, 2)).agree(None)
    monkeypatch.setattr(lifeline, "PATIENCE", 0.1)
    with pytest.raises(SystemExit):
        group.Ranks(Place(1, 2)).agree("no data")
    monkeypatch.setattr(group, "gather", lambda mistake: [mistake, None])
    group.Ranks(Place(0, 2)).agree(None)


def test_the_meeting_place_of_one_machine_hears_this_machine_alone() -> None:
    store = group.local_store(1)
    tables = [file.read_text().splitlines()[1:] for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))]
    addresses = [line.split()[1].split(":") for table in tables for line in table if line.split()[3] == "0A"]
    assert [address for address, port in addresses if int(port, 16) == store.port] == ["0100007F"]
    store.set("key", "value")
    assert store.get("key") == b"value"
