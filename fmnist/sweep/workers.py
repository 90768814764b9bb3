"""Ctrl-C in a sweep whose jobs run in parallel processes of this machine, and the end of a job that SLURM runs.

A terminal sends Ctrl-C to all processes of its session at once. A worker would die of it between two jobs, and joblib
would kill the workers while they save. So everything runs in a session of its own, and only the process that was typed
hears of Ctrl-C. It asks for the end through a file, for which the workers look.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fmnist.config.processes import end_with, interrupted_by_hangup

SECONDS_BETWEEN_LOOKS = 0.5
ANNOUNCEMENT = getattr(
    signal, "SIGUSR2", signal.SIGTERM
)  # by which submitit lets SLURM announce a job's end; not on Windows
STOP_FILE = "stop"
"""Asks the workers to end; it lies beside the outcomes of their jobs."""


def continue_in_own_session(stop: Path) -> None:
    """Continue in a child process that a terminal's Ctrl-C doesn't reach; this process waits for it and exits.

    Args:
        stop: a file that is made when Ctrl-C is pressed, or when this process is killed.
    """
    parent = os.getpid()

    def ask(*_: object) -> None:
        with contextlib.suppress(OSError):  # all jobs have ended, and the folder is gone
            stop.touch()

    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.setsid()
        signal.signal(signal.SIGINT, ask)
        end_with(parent)
        return
    while True:
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            break
        except KeyboardInterrupt:
            print("interrupted: the running jobs save their checkpoints", flush=True)
            os.kill(child, signal.SIGINT)
    sys.exit(status if status >= 0 else 128 - status)


@contextlib.contextmanager
def interrupted_when(stopped: Callable[[], bool]) -> Iterator[None]:
    """Within it, interrupt this process once, as Ctrl-C does, as soon as `stopped` returns True."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            if stopped():
                os.kill(os.getpid(), signal.SIGINT)
                return

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with contextlib.suppress(KeyboardInterrupt):  # that came as the work ended
            over.set()
            watcher.join()


@contextlib.contextmanager
def end_announced() -> Iterator[list[int]]:
    """Within it, interrupt a job of submitit when SLURM ends it, so that a training saves its checkpoint first.

    Otherwise submitit ignores SIGTERM, and on its own signal, which SLURM sends before the job's time is over, has the
    job started again at once. Outside of submitit it does nothing.

    Returns:
        The signals of submitit that came.
    """
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(ANNOUNCEMENT)
    if not callable(handler):
        yield came
        return
    with interrupted_by_hangup():
        signal.signal(ANNOUNCEMENT, interrupt)
        try:
            yield came
        finally:
            signal.signal(ANNOUNCEMENT, handler)
