"""Several processes that train one run: how they are started and watched, and what they exchange.

Lightning's DDP does the training. The processes are PyTorch's: its elastic agent starts, watches and ends those of one
machine; torchrun or srun start those of several.
"""

import contextlib
import logging
import multiprocessing
import os
import pickle  # nosec B403 (only what processes of one run send each other is read)
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore, rendezvous  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fmnist.config.processes import quick_end
from fmnist.training.rank_info import OWN_LAUNCHER, RankInfo, find_rank
from fmnist.training.srun import TIMEOUT, open_store, wait_for_others

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
STORE_TIMEOUT = timedelta(seconds=60)
REPORT_TIMEOUT = timedelta(seconds=5)
MONITOR_INTERVAL = 0.2  # seconds between two looks at the processes
ERROR_KEY = "error"
FORWARDED = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class ProcessLostError(ConnectionError):
    """Another process of the run has ended; the message is meant for the user."""

    reported = False
    """Whether another process has told the user."""


# Starting processes on this machine


def launch(worker: Callable[..., T], num_processes: int, *args: Any, max_restarts: int = 0) -> T:
    """Run a function in several processes of this machine and return the value of rank zero.

    Each process is a member of the default process group. Signals that this process gets are passed on to all of them.

    Args:
        worker: a function of a module, called with `args` in each process.
        num_processes: how many.
        args: plain values.
        max_restarts: how often all processes are started again after one has died.

    Raises:
        ProcessLostError: if a process has died.
        Exception: the first exception of a worker.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it prints tracebacks of its own
    # Opened here, as it listens on loopback alone; a store that torch opens by itself listens everywhere.
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    store = TCPStore(LOOPBACK, port, None, True, wait_for_workers=False, master_listen_fd=listener.detach())
    with tempfile.TemporaryDirectory() as folder, _signals_forwarded() as forwarded:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_processes,
            run_id=f"fmnist-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder, "rendezvous")),
            rdzv_configs={"store_type": "file"},
            max_restarts=max_restarts,
            monitor_interval=MONITOR_INTERVAL,
            start_method="spawn",
            signals_to_handle="",  # of this process: they are forwarded
        )
        Path(folder, "rendezvous").touch()
        try:
            attempt, value = elastic_launch(config, _run_worker)(port, worker, args)[0]
        except ChildFailedError as error:
            if forwarded:  # before the training has begun to handle signals
                raise KeyboardInterrupt from None
            raise ProcessLostError(f"rank {min(error.failures)}, a process of this run, has ended") from None
    if store.check([error_key := f"{ERROR_KEY}/{attempt}"]):
        raise pickle.loads(bytes.fromhex(store.get(error_key).decode()))  # nosec B301 (of our own processes)
    result: T = value
    return result


@contextlib.contextmanager
def _signals_forwarded() -> Iterator[list[int]]:
    """Pass signals on to the processes that this one has started, and give the list of those that came.

    They are in sessions of their own, so that Ctrl-C reaches them once, and by this way alone.
    """

    forwarded: list[int] = []

    def forward(number: int, _: object) -> None:
        forwarded.append(number)
        for process in multiprocessing.active_children():
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    names = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
    handled = [name for name in names if signal.getsignal(name) != signal.SIG_IGN]
    previous = {name: signal.signal(name, forward) for name in handled}
    try:
        yield forwarded
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def _run_worker(port: int, worker: Callable[..., T], args: tuple[Any, ...]) -> tuple[int, T | None]:
    """Run a function as one of the processes of `launch`; return the number of the attempt and the function's value."""
    os.environ[OWN_LAUNCHER] = "1"
    if hasattr(os, "setsid"):
        os.setsid()
    _handle_signals(_interrupt)  # until the training handles them
    rank = find_rank()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // rank.world_size))
    store = TCPStore(LOOPBACK, port, None, False, timeout=STORE_TIMEOUT)
    value = None
    with process_group(rank, store):
        try:
            value = worker(*args)
        except BaseException as error:
            # Before the group is left, of which the others hear: the first one to tell is the reason.
            store.compare_set(f"{ERROR_KEY}/{rank.restarts}", "", _pickled(explained(error)))
    _handle_signals(_leave)
    quick_end.prepare(0)
    return rank.restarts, value


def _pickled(error: BaseException) -> str:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # nosec B301 (our own)
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content.hex()


def _handle_signals(handler: Callable[[int, Any], None]) -> None:
    for name in FORWARDED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _leave(number: int, _: object) -> None:
    """End at once: nothing is left to do but to wait for the other processes."""
    os._exit(128 + number)


# The process group


@contextlib.contextmanager
def process_group(rank: RankInfo, store: Store | None = None) -> Iterator[None]:
    """Join the processes of a run as the default process group, and leave it.

    Args:
        rank: of this process.
        store: where the processes meet; by default torchrun's or, for srun, one that rank zero opens.

    Raises:
        ProcessLostError: if another process has ended before it joined.
        ValueError: if srun's processes can't meet at their port.
    """
    os.environ["LOCAL_RANK"] = str(rank.local_rank)  # read by torch
    threads = torch.get_num_threads()
    try:
        _join(rank, store)
        yield
    except BaseException:
        if rank.launcher == "srun":  # which ends the others as soon as one has ended: each has an exit status to give
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        torch.set_num_threads(threads)  # Lightning gives each of several processes its share


def _join(rank: RankInfo, store: Store | None) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if store is None and rank.launcher == "srun":
            store = open_store(rank)
            if rank.rank == 0:
                wait_for_others(store, rank)
        elif store is None:
            store, _, _ = next(rendezvous("env://", rank.rank, rank.world_size, timeout=TIMEOUT))
        # torchrun's store outlives its processes: after a restart they must not find the addresses of those before.
        store = PrefixStore(f"attempt_{rank.restarts}", store)
        distributed.init_process_group(
            backend, store=store, rank=rank.rank, world_size=rank.world_size, timeout=TIMEOUT
        )
    except RuntimeError as error:
        raise explained(error) from None


def explained(error: BaseException) -> BaseException:
    """Return the error of a process group that another process has left as a `ProcessLostError`, others as they are."""
    lost = isinstance(error, distributed.DistError) or "gloo" in str(error) or "Connection closed by peer" in str(error)
    return ProcessLostError("another process of this run has ended") if lost else error


def first_to_report(rank: RankInfo) -> bool:
    """Return whether no other process of torchrun or srun has told the user yet why the run ends."""
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*address, None, False, timeout=REPORT_TIMEOUT, wait_for_workers=False)
        return store.add(f"fmnist/reported/{rank.restarts}", 1) == 1
    except (RuntimeError, OSError, KeyError):  # the store has gone with its process
        return True


def broadcast(value: Any) -> Any:
    """Return the value of rank zero on every rank."""
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """Return the values of all ranks on every rank."""
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
