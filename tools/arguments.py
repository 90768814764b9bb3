"""Command lines of the project's own tools: every error is one line and a non-zero exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hydra.errors import HydraException

USER_ERRORS = (ValueError, OSError, HydraException)


class Parser(argparse.ArgumentParser):
    """A parser that reports invalid arguments like every other error, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists the arguments)")


def positive(text: str) -> int:
    """Return a whole number of at least 1, as an argument's `type`."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1")
    return int(text)


def names(text: str) -> list[str]:
    """Return the parts of `a,b`, as an argument's `type`."""
    return [name.strip() for name in text.split(",")]


def exit_status(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run a tool and return its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    try:
        main(arguments)
    except KeyboardInterrupt:
        return 130
    except USER_ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
