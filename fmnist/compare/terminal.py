"""A comparison on the terminal."""

import os
import re
import textwrap
from pathlib import Path

from pandas import DataFrame
from rich.table import Table

from fmnist.compare.formatting import NOTHING, RUNS_FILE, SETTINGS_FILE, ranking_table, relative, sentences, summary
from fmnist.compare.ranking import Comparison
from fmnist.plotting.terminal import as_text, grid, widths

MAX_ROWS = 30
MAX_UNRANKED = 10
OPTIONAL = ["to best", "95% CI", "p (Holm)", "seconds"]
"""Columns of the ranking that a narrow terminal doesn't show."""


def terminal_text(comparison: Comparison, width: int, folder: Path) -> str:
    """Return the ranking, its explanation, and the runs that haven't finished, named as seen from `folder`."""
    parts = [f"{summary(comparison)}, by {comparison.metric}"]
    if comparison.runs:
        parts.append(as_text(ranking(comparison, width), width))
    if (more := len(comparison.runs) - MAX_ROWS) > 0:
        parts.append(f"... {more:,} more in {SETTINGS_FILE}")
    parts += [textwrap.fill(sentence, width, break_on_hyphens=False) for sentence in sentences(comparison)]
    if comparison.unranked:
        rows = [
            [relative(run.folder, folder), run.status, str(run.epochs), run.error[:width]]
            for run in comparison.unranked[:MAX_UNRANKED]
        ]
        table = grid(["run", "status", "epochs", "error"], rows, ("run", "status", "error"))
        parts += ["not ranked, as they have not finished:", as_text(table, width)]
    if (more := len(comparison.unranked) - MAX_UNRANKED) > 0:
        parts.append(f"... {more:,} more in {RUNS_FILE}")
    return "\n".join(parts)


def ranking(comparison: Comparison, width: int) -> Table:
    """Return the best settings: with all columns, with those that say most, or with the settings in one of them."""
    texts = ranking_table(comparison, MAX_ROWS)
    settings = texts[list(comparison.settings)]
    texts = texts.loc[:, (texts != NOTHING).any()]
    for columns in (texts, texts.drop(columns=OPTIONAL, errors="ignore")):
        table = _grid(columns, {*settings, "verdict"})
        if widths(table).maximum <= width:
            return table
    narrow = columns.drop(columns=list(settings))
    in_one = [
        " ".join(f"{key}={text}" for key, text in row.items() if text != NOTHING) for row in settings.to_dict("records")
    ]
    narrow.insert(1, "setting", in_one)
    return _grid(narrow, {"setting", "verdict"})


def _grid(texts: DataFrame, words: set[str]) -> Table:
    """Return a table, with long headings on several lines."""
    headings = {name: re.sub(r"(?<=[./])(?=.)| (?=\()", "\n", name) for name in texts}
    return grid(list(headings.values()), texts.to_numpy().tolist(), {headings[name] for name in words & {*texts}})


def terminal_width(least: int = 80) -> int:
    """Return the width of the terminal that is written to, but no less than 80 characters."""
    try:
        return max(least, os.get_terminal_size(1).columns)
    except OSError:
        return least
