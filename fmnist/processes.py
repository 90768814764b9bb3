"""What a process and those that it started hear of each other's end."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

EVERY = 1.0  # seconds between two looks at the parent


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
