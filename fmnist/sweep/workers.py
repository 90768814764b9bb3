"""The processes of one machine that run jobs beside each other: how Ctrl-C reaches them, and how they end.

Those of joblib, that is. A terminal's Ctrl-C goes to all its processes at once, and joblib would kill its own while
they save. So they leave the terminal's session, and only the process that the person started hands it on to them.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

T = TypeVar("T")

BETWEEN_LOOKS = 0.1  # seconds
PARENT_LOOKS = 1.0  # seconds between two looks whether the parent is still there
TO_CLEAN_UP = 5.0  # seconds after a kill
INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended


class StoppedAtOnce(KeyboardInterrupt):
    """The person pressed Ctrl-C twice: the jobs were killed."""


def uses_joblib(launcher: DictConfig) -> bool:
    """Whether the jobs run in processes of this machine."""
    return str(launcher._target_).endswith(".JoblibLauncher")


def runs_in_turn(launcher: DictConfig) -> bool:
    """Whether the jobs run in this process, one after the other; joblib, too, does so where it has one at once."""
    if not uses_joblib(launcher):
        return str(launcher._target_).endswith(".BasicLauncher")
    import joblib  # half a second, of which --help needs nothing

    return int(joblib.effective_n_jobs(launcher.n_jobs)) == 1


def run_beside(launch: Callable[[], T], on_interrupt: Callable[[], None]) -> T:
    """What joblib's launcher returns, which runs in a thread: this one waits for Ctrl-C.

    Args:
        launch: starts the processes, and returns when the jobs have ended.
        on_interrupt: is called at the first Ctrl-C; it should see to it that no more jobs begin.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the jobs that ran have saved their checkpoints.
        StoppedAtOnce: after another, when they were killed.
    """
    presses = 0

    def count(*_: object) -> None:
        nonlocal presses
        presses += 1

    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _block_interrupts()
            results.append(launch())
        except BaseException as error:
            errors.append(error)
        finally:
            _end_workers()

    previous = signal.signal(signal.SIGINT, count)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    asked = False
    told: set[int] = set()
    while thread.is_alive():
        thread.join(BETWEEN_LOOKS)
        if presses and not asked:
            asked = True
            on_interrupt()
        if presses > 1:
            _kill_workers(thread)
            raise StoppedAtOnce
        if asked:
            for process in _workers_here() - told:  # also those that were being started
                told.add(process)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)
    signal.signal(signal.SIGINT, previous)
    if presses:
        raise KeyboardInterrupt
    if errors:
        raise errors[0]
    return results[0]


def _block_interrupts() -> None:
    """For this thread and what it starts: Ctrl-C would end a process that isn't ready yet, with a traceback."""
    from joblib.externals.loky.backend import resource_tracker as joblib_tracker

    for tracker in (resource_tracker, joblib_tracker):
        tracker.ensure_running()  # first, as their start would unblock it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _end_workers() -> None:
    """Ends those of joblib, which has them wait for more jobs."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True).shutdown(wait=True)


def _kill_workers(thread: threading.Thread) -> None:
    """Kills them and what they have started; what joblib has to say about it is kept from the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = time.monotonic() + TO_CLEAN_UP
    with Path(os.devnull).open("w") as silent, contextlib.redirect_stderr(silent):
        while thread.is_alive():
            for process in _workers_here():
                with contextlib.suppress(ProcessLookupError):
                    _kill(process)
            thread.join(BETWEEN_LOOKS)
            if time.monotonic() > end:
                os._exit(INTERRUPTED)


def _workers_here() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def _kill(process: int) -> None:
    if os.getpgid(process) == process:
        os.killpg(process, signal.SIGKILL)
    else:  # it hasn't begun its first job, and has started nothing
        os.kill(process, signal.SIGKILL)


class Worker:
    """What one of the processes remembers from job to job: whether it was asked to end.

    Where the process that started it dies, the job that runs saves its checkpoint and the worker ends.

    Args:
        parent: the process id of the one that started it.
    """

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.asked = self.interruptible = False
        self.at_work = threading.Lock()
        os.setsid()
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self, job: Callable[[], Any], folder: Path) -> Any:
        """What the job returns; None where it was interrupted, or none should begin."""
        with self.at_work, contextlib.suppress(KeyboardInterrupt):
            try:
                signal.signal(signal.SIGINT, self._on_interrupt)
                self.interruptible = True
                if not self.asked and self._has_parent():
                    return job()
            except KeyboardInterrupt:
                self.asked = True
            finally:
                self.interruptible = False
                if self.asked:
                    with contextlib.suppress(OSError):
                        folder.rmdir()  # which Hydra has made; anything in it makes it stay
                if not self._has_parent():
                    os._exit(INTERRUPTED)
        return None

    def _on_interrupt(self, *_: object) -> None:
        self.asked = True
        if self.interruptible:
            raise KeyboardInterrupt

    def _has_parent(self) -> bool:
        return os.getppid() == self.parent

    def _watch(self) -> None:
        while self._has_parent():
            time.sleep(PARENT_LOOKS)
        os.kill(os.getpid(), signal.SIGINT)
        with self.at_work:
            os._exit(INTERRUPTED)


_workers: list[Worker] = []


def as_worker(parent: int, job: Callable[[], Any], folder: Path) -> Any:
    """Runs a job in a process of joblib's; see `Worker`.

    Args:
        parent: the process id of the one that the person started.
        job: is run.
        folder: the job's; where it doesn't begin, it leaves none.
    """
    if not _workers:
        _workers.append(Worker(parent))
    return _workers[0].run(job, folder)
