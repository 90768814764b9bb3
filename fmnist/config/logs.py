"""Where the project's log lines go: plain to the terminal, with time and level to the run's file."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

PROJECT = logging.getLogger("fmnist")
LIGHTNING = logging.getLogger("lightning.pytorch")
WARNINGS = logging.getLogger("py.warnings")
SHOWN = (PROJECT, LIGHTNING, WARNINGS)
UNHELPFUL = (
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 asks torch 2.15 in an old way; no user could mend it
    r"Total length of `list` across ranks is zero",  # no validation images, as data.val_size=0 asks for
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",  # what is logged is the same in every process
    r"Checkpoint directory .* exists and is not empty",  # as it does whenever a run is resumed
)
"""Warnings that would only distract."""


class _Terminal(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stdout` or `sys.stderr` is at that moment: a progress bar replaces them while it is shown.

    A terminal that is closed meanwhile, or a reader that has gone (`| head`), misses the rest; the work goes on.
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        logging.Handler.__init__(self)
        self.stream_name = name
        if name == "stdout":
            self.addFilter(lambda line: line.levelno < logging.WARNING)
        else:
            self.setLevel(logging.WARNING)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        stream: TextIO = getattr(sys, self.stream_name)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if isinstance(sys.exc_info()[1], OSError):
            self.setLevel(logging.CRITICAL + 1)
            _silence(self.stream)
        else:
            super().handleError(record)


def _silence(stream: TextIO) -> None:
    """Sends nowhere what is still to be written, as Python would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class _File(logging.FileHandler):
    """Where it can't be written, as on a full disk, a line says so, once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif self.level <= logging.CRITICAL:
            self.setLevel(logging.CRITICAL + 1)
            PROJECT.warning("%s can't be written any more: %s", self.baseFilename, error.strerror)


def to_terminal(*, errors_only: bool = False) -> None:
    """Shows the project's lines; of Lightning's only the warnings, as the project says the rest itself.

    Args:
        errors_only: as of several processes one is enough to say the rest.
    """
    PROJECT.setLevel(logging.INFO)
    LIGHTNING.setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's report
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}"
    for message in UNHELPFUL:
        warnings.filterwarnings("ignore", message=message)
    for logger in SHOWN:
        logger.propagate = False  # Hydra and Lightning have handlers of their own above
        logger.handlers = [_Terminal("stdout"), _Terminal("stderr")]
        for handler in logger.handlers if errors_only else []:
            handler.setLevel(logging.ERROR)


@contextlib.contextmanager
def off_terminal() -> Iterator[None]:
    """Keeps the lines from the terminal, but not from a file."""
    before = [(logger, handler) for logger in SHOWN for handler in logger.handlers if isinstance(handler, _Terminal)]
    for logger, handler in before:
        logger.removeHandler(handler)
    try:
        yield
    finally:
        for logger, handler in before:
            logger.addHandler(handler)


@contextlib.contextmanager
def to_file(file: Path) -> Iterator[None]:
    """Also writes the lines to the end of a file."""
    handler = _File(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for logger in SHOWN:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in SHOWN:
            logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # what it couldn't write
            handler.close()


@contextlib.contextmanager
def stderr_silent() -> Iterator[None]:
    """Nothing reaches the standard error, not even what libraries write there past Python."""
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
