"""How processes end: exit statuses, signals, and the end of a process with the one that started it."""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

INTERRUPTED = 130
"""The exit status after Ctrl-C."""
REQUEUE = 75
"""The exit status that asks for another try later: EX_TEMPFAIL of sysexits.h."""
SYSTEM_SIGNALS = {getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)}
"""By which clusters end or announce the end of a job, and terminals that of the processes in them."""
SECONDS_BETWEEN_LOOKS = 1.0

at_end = contextlib.ExitStack()
"""What the command line calls when a command ends, in whichever way: a feature pushes its own end here."""


class Terminated(KeyboardInterrupt):
    """Raised when the system asks for the end, as a cluster does before it takes the machine away."""


def end_with(parent: int) -> None:
    """Interrupt this process, as Ctrl-C does, once the one that started it has ended.

    Args:
        parent: the process id of the one that started it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def interrupted_by_hangup() -> Iterator[None]:
    """Raise KeyboardInterrupt for the signals of the system, as for Ctrl-C, unless they are ignored, as under nohup."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in SYSTEM_SIGNALS if signal.getsignal(name) != signal.SIG_IGN]
    previous = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


class QuickEnd:
    """Ends a process as soon as its exit handlers have run.

    Otherwise Python deletes what was imported object by object, which takes 1.5 s on 2 CPU cores. Exit handlers run in
    reverse order, so it is made before the imports. It does nothing in a program that only runs a script, as pytest.
    """

    def __init__(self) -> None:
        self._status: int | None = None
        self._program: object = None
        atexit.register(self._end)

    def prepare(self, status: int) -> None:
        """Let the process end with this exit status, once it ends."""
        self._status, self._program = status, sys.modules["__main__"]

    def _end(self) -> None:
        if self._status is None or sys.modules["__main__"] is not self._program:
            return
        with contextlib.suppress(OSError):  # as a closed pipe, which Python's own end reports
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._status)


quick_end = QuickEnd()
"""Of this process. Made here, as the main module of each process imports this module first."""
