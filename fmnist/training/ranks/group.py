"""The processes of one run as a group: they join, take up one task, and leave together or hear that one is gone."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import distributed
from torch.distributed import Store, TCPStore, rendezvous  # type: ignore[attr-defined]

from fmnist.training.ranks import lifeline
from fmnist.training.ranks.place import CHILD, Place, find_place

LIFELINE = "FMNIST_LIFELINE"
"""Set by rank zero for the processes that it starts: where to find it."""
LOOPBACK = "127.0.0.1"
PORTS = 15000  # from there on, and as many
JOINING = timedelta(minutes=30)  # until an operation fails by itself: rank zero may have to download the data
GRACE = 20.0  # seconds in which a process should notice by itself that another one is gone
NEWS = 5.0  # seconds in which the news of a lost process comes after the operation that it has broken


class RankLostError(ConnectionError):
    """Another process of the run is gone; the message is meant for the user."""


def local_store(size: int) -> TCPStore:
    """Where the processes of this machine meet: it listens on loopback, as one that torch opens itself wouldn't."""
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    return TCPStore(LOOPBACK, port, size, True, wait_for_workers=False, master_listen_fd=listener.detach())


class Ranks:
    """The processes of a run, as one of them sees them; alone, it does nothing."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or Place()
        self.hint = ""
        """What the person can do when a process is gone."""
        self._children: list[subprocess.Popen[bytes]] = []
        self._lines: lifeline.Lifelines | None = None
        self._line: lifeline.Connection | None = None
        self._store: Store | None = None
        self._news = threading.Event()
        self._lost: int | None = None
        self._working = False
        """Whether the end of a lifeline is the end of the work."""
        self._done = False
        """Whether the others end by themselves."""
        self._threads = torch.get_num_threads()
        """Of a process that has the machine for itself; Lightning gives each of several its share."""

    @property
    def first(self) -> bool:
        """Rank zero, which alone writes and speaks."""
        return self.place.rank == 0

    @property
    def several(self) -> bool:
        return self.place.size > 1

    def start(self, size: int) -> None:
        """Starts the others on this machine, each with this process's command line, if nobody else has."""
        if size == self.place.size:
            return
        assert not self.place.external
        self.place = replace(self.place, size=size)
        self._lines = lifeline.Lifelines(LOOPBACK, self._ended)
        self._store = store = local_store(size)
        for rank in range(1, size):
            told = {
                CHILD: f"{rank}/{size}",
                LIFELINE: f"{self._lines.port} {self._lines.token}",
                "MASTER_PORT": str(store.port),
            }
            # In sessions of their own: Ctrl-C reaches rank zero, which tells the others at which step they stop.
            command = [sys.executable, *sys.argv]
            self._children.append(
                subprocess.Popen(command, env={**os.environ, **told}, stdin=subprocess.DEVNULL, start_new_session=True)
            )

    def connect(self) -> None:
        """Finds the others, whom somebody else has started, or rank zero, which has started this process."""
        place = self.place
        self._working = True
        if place.started_by == "rank zero":
            at, token = os.environ[LIFELINE].split()
            try:
                self._line = lifeline.connect(LOOPBACK, int(at), token, place.rank, self._ended)
            except OSError:
                sys.exit(1)  # rank zero has ended meanwhile, and has said why
            self._store = TCPStore(LOOPBACK, int(os.environ["MASTER_PORT"]), place.size, False)
            return
        if place.started_by == "srun":
            host = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
            # The same in all processes, and another one for each job.
            port = PORTS + (int(os.environ["SLURM_JOB_ID"]) + int(os.environ["SLURM_STEP_ID"])) % PORTS
            os.environ.setdefault("MASTER_ADDR", host)
            os.environ.setdefault("MASTER_PORT", str(port))
        host = os.environ["MASTER_ADDR"]
        meeting = rendezvous("env://", place.rank, place.size, timeout=JOINING)
        self._store, _, _ = next(meeting)
        if self.first:
            self._lines = lifeline.Lifelines(host, self._ended)
            self._store.set(LIFELINE, f"{self._lines.port} {self._lines.token}")
        else:
            at, token = self._store.get(LIFELINE).decode().split()
            self._line = lifeline.connect(host, int(at), token, place.rank, self._ended)

    def _join(self) -> None:
        """Makes a process group of all processes."""
        place = self.place
        os.environ |= {"LOCAL_RANK": str(place.local_rank), "NODE_RANK": str(place.node)}  # where Lightning looks
        rank_zero_only.rank = place.rank  # type: ignore[attr-defined]
        self._working = True
        if self._lines is not None:
            self._await_all(self._lines)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(
            backend, store=self._store, rank=place.rank, world_size=place.size, timeout=JOINING
        )

    def _await_all(self, lines: lifeline.Lifelines) -> None:
        """Until all others have come."""
        end = time.monotonic() + JOINING.total_seconds()
        while len(lines.connections) < self.place.size - 1:
            missing = [rank for rank in range(1, self.place.size) if rank not in lines.connections]
            ended = [rank for rank in missing if self._children and self._children[rank - 1].poll() is not None]
            if ended or time.monotonic() > end:
                raise RankLostError(f"rank {(ended or missing)[0]}, another process of this run, never began")
            time.sleep(0.05)

    def receive(self) -> dict[str, Any]:
        """What rank zero wants to be done; where it ends before, this process ends, too."""
        self._join()
        task: dict[str, Any] = broadcast(None)
        self.hint = task["hint"]
        return task

    @contextlib.contextmanager
    def together(self, task: dict[str, Any]) -> Iterator[None]:
        """Rank zero's side of what all processes do.

        Args:
            task: plain values.

        Raises:
            RankLostError: if another process is gone.
            ValueError: if another process can't take the task up.
        """
        if not self.several:
            yield
            return
        self.hint = task["hint"]
        try:
            self._join()
            broadcast(task)
            self.agree(None)
            yield
            self._done = True
        except Exception as error:
            if self._news.wait(NEWS) and self._lost is not None:
                raise RankLostError(self._lost_words()) from error
            raise
        finally:
            self.leave()

    def agree(self, mistake: str | None) -> None:
        """Whether every process can do its part.

        Raises:
            ValueError: on rank zero, with the first mistake of another; the others end.
        """
        found = gather(f"rank {self.place.rank} on {socket.gethostname()}: {mistake}" if mistake else None)
        first = next((words for words in found if words), None)
        if first and self.first:
            raise ValueError(first)
        if first:
            self._news.wait(lifeline.PATIENCE)  # first rank zero has its say: torchrun ends all when one ends
            self.leave()
            sys.exit(2)

    def leave(self, *, goodbye: bool = True) -> None:
        """Ends the group, rank zero going on alone.

        Args:
            goodbye: without it the others take this process for lost.
        """
        self._working = False
        if goodbye and self._lines is not None:
            self._lines.say_goodbye()
        if goodbye and self._line is not None:
            self._line.say_goodbye()
        if distributed.is_initialized():
            distributed.destroy_process_group()
            torch.set_num_threads(self._threads)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(lifeline.PATIENCE if self._done else 0)
            child.kill()
            child.wait()
        self._children, self.place = [], replace(self.place, size=1)

    def await_first(self) -> None:
        """Ends this process after rank zero, if that is what has ended its part; otherwise returns."""
        if self._news.wait(lifeline.PATIENCE):
            self._end_with_others()

    def _ended(self, rank: int, goodbye: bool) -> None:
        """Called in a thread when a lifeline ends."""
        if not self._working:
            return
        if not goodbye:
            self._lost = rank
        elif self.first:
            return  # it has done its part
        self._news.set()
        # Whoever waits in an operation of the group may wait long: what Python does then has no effect.
        timer = threading.Timer(GRACE if goodbye is False else 0.0, self._end_if_working)
        timer.daemon = True
        timer.start()

    def _end_if_working(self) -> None:
        if self._working:
            self._end_with_others()

    def _end_with_others(self) -> None:
        """At once, whatever the main thread is waiting for."""
        # Of the others on one machine the first speaks, if rank zero can't.
        if self._lost is not None and (self.first or self.place.rank == 1 or self.place.local_rank == 0):
            print(f"error: {self._lost_words()}", file=sys.stderr, flush=True)
        if self._lines is not None:
            self._lines.say_goodbye()
        for child in self._children:
            child.kill()
        os._exit(2)

    def _lost_words(self) -> str:
        return f"rank {self._lost}, another process of this run, is gone{self.hint}"


@contextlib.contextmanager
def entered() -> Iterator[Ranks]:
    """The processes of this run: joined already, where others have started this one."""
    ranks = Ranks(find_place())
    goodbye = True
    try:
        if ranks.several:
            ranks.connect()
        yield ranks
    except Exception:
        goodbye = ranks.first
        raise
    finally:
        ranks.leave(goodbye=goodbye)


def broadcast(value: Any) -> Any:
    """Rank zero's value, on every rank."""
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """Every rank's value, on every rank."""
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
