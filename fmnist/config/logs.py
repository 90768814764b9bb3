"""The project's log: plain lines on the terminal, lines with time and level in the run's file."""

import codecs
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

PROJECT = logging.getLogger("fmnist")
LIGHTNING = logging.getLogger("lightning.pytorch")
LOGGERS = (PROJECT, LIGHTNING, logging.getLogger("py.warnings"))
IGNORED_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 calls torch 2.15 in a deprecated way
    r"Total length of `list` across ranks is zero",  # no validation images: data.val_size=0
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",  # all processes log the same values
    r"Be aware that when using `ckpt_path`, .*\['Timer'\]",  # a run that is resumed without its trainer.max_time
    r"Checkpoint directory .* exists and is not empty",  # every resumed run
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the frozen layers of model.freeze=true
    r"The `srun` command is available",  # on the machines of a cluster; no run needs it
)
"""Patterns of warnings that the user can do nothing about."""
SIMILAR = {"─": "-", "━": "-", "│": "|", "┃": "|", "±": "+-", "…": "..."}
"""What a stream shows that has only ASCII characters."""


class _TerminalHandler(logging.Handler):
    """Write warnings to the present `sys.stderr`, other lines to `sys.stdout`, which a progress bar replaces.

    A line that is the one before again, as of the data of several runs, is left out. When the terminal is closed or the
    reader has gone (`| head`), the remaining lines are dropped.
    """

    before = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if line == self.before:
            return
        self.before = line
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            stream.write(f"{line}\n")
            stream.flush()
        except OSError:
            # Otherwise Python would try to write what is buffered at its end, and complain.
            with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
        except Exception:
            self.handleError(record)


class _FileHandler(logging.FileHandler):
    """Write to a file; if that fails, as on a full disk, warn once and drop the remaining lines."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif self.level <= logging.CRITICAL:
            self.setLevel(logging.CRITICAL + 1)
            PROJECT.warning("%s can't be written to any more: %s", self.baseFilename, error.strerror)


def to_terminal(*, errors_only: bool = False) -> None:
    """Show the project's log, warnings, and Lightning's warnings on the terminal.

    Args:
        errors_only: for all but one of several processes, whose lines are the same.
    """
    show_any_text()
    PROJECT.setLevel(logging.INFO)
    LIGHTNING.setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's report
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}"
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for logger in LOGGERS:
        logger.propagate = False  # to the handlers of Hydra and Lightning
        logger.handlers = [_TerminalHandler(logging.ERROR if errors_only else logging.NOTSET)]


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from telling what it chooses, and from warnings that the user can do nothing about."""
    levels = [(logger, logger.level) for logger in (LIGHTNING, logging.getLogger("lightning.fabric"))]
    for logger, _ in levels:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in IGNORED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


def show_any_text() -> None:
    """Let streams show a character that they haven't got, as in a terminal that isn't UTF-8, by similar ones."""
    codecs.register_error("similar", _similar)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="similar")


def _similar(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    return "".join(SIMILAR.get(letter) or ascii(letter)[1:-1] for letter in letters), error.end


@contextlib.contextmanager
def off_terminal() -> Iterator[None]:
    """Keep the log from the terminal, but not from a file."""
    removed = [
        (logger, handler) for logger in LOGGERS for handler in logger.handlers if isinstance(handler, _TerminalHandler)
    ]
    for logger, handler in removed:
        logger.removeHandler(handler)
    try:
        yield
    finally:
        for logger, handler in removed:
            logger.addHandler(handler)


@contextlib.contextmanager
def to_file(file: Path) -> Iterator[None]:
    """Append the log to a file, too."""
    handler = _FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for logger in LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in LOGGERS:
            logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # of lines that couldn't be written
            handler.close()


@contextlib.contextmanager
def stderr_silent() -> Iterator[None]:
    """Let nothing reach the standard error, not even what libraries write there without Python."""
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
