"""The end of a process, and what those that it started hear of it."""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later
EVERY = 1.0  # seconds between two looks at the parent


class Terminated(KeyboardInterrupt):
    """The system has asked for the end (a cluster's preemption, a closed terminal): what was begun can go on later."""


def end_with(parent: int) -> None:
    """Interrupts this process, as Ctrl-C does, once the one that started it is gone.

    Args:
        parent: the process id of the one that started it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def interrupted_by_hangup() -> Iterator[None]:
    """Within it a closed terminal and SIGTERM are a KeyboardInterrupt, as Ctrl-C is; not what nohup has ignored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(name) != signal.SIG_IGN]
    previous = {name: signal.signal(name, interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


class QuickEnd:
    """Ends a process that has succeeded as soon as all that is to be done at its exit is done.

    Else Python takes apart what was imported, object by object: 1.5 s. Make it before the imports, so that its turn
    comes after theirs. Where the program is another one that runs a script, such as pytest, it does nothing.
    """

    def __init__(self) -> None:
        self.succeeded = False
        self._program = sys.modules["__main__"]
        atexit.register(self._end)

    def _end(self) -> None:
        if not self.succeeded or sys.modules["__main__"] is not self._program:
            return
        with contextlib.suppress(OSError):  # of a reader that has gone: Python's own end finds and tells it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
