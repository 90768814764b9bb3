"""Tables, and how progress bars look, on the terminal."""

import io
import os
import textwrap
from collections.abc import Collection, Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

WIDTH = 80
PROGRESS_THEME = Theme(
    {
        **dict.fromkeys(("bar.complete", "bar.finished", "progress.percentage"), "magenta"),
        "bar.back": "dim",
        "progress.remaining": "none",
    }
)
"""Colours of progress bars that can be told apart on a light background and on a dark one."""


def shows_progress(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can replace what it shows, as a progress bar does."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def progress_console() -> Console:
    """Return the standard error for a progress bar, as the standard output may hold a result."""
    return Console(stderr=True, theme=PROGRESS_THEME)


def as_text(table: Table, width: int = WIDTH) -> str:
    """Return the table without colours, empty lines and spaces at the ends of lines."""
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, force_jupyter=False).print(table)  # which would show it there
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def wrapped(text: str) -> str:
    """Return a text in lines that fit, all but the first indented; long words, as paths, stay whole."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str]) -> Table:
    """Return a table of texts, which are shown as they are.

    Args:
        words: the headings of the columns of text, which are flush left and may wrap; all others hold numbers.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        if heading in words:
            table.add_column(Text(heading), overflow="fold")
        else:
            width = max(len(line) for text in (heading, *(row[place] for row in rows)) for line in text.split("\n"))
            table.add_column(Text(heading), justify="right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    return table


def printable(text: str) -> str:
    """Return the text on one line, with control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def widths(table: Table) -> Measurement:
    """Return the smallest width that breaks no word, and the width at which no text wraps."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table)
