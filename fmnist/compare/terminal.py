"""A comparison on the terminal."""

import itertools
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fmnist.compare import formatting as words
from fmnist.compare.ranking import TEST_METRIC, Comparison, Row
from fmnist.compare.reading import RunResult, shown
from fmnist.plotting.terminal import as_text, grid, widths

MOST_ROWS = 30
MOST_UNRANKED = 10
SETTING = "setting"
DIFFERENCE, INTERVAL, P, VERDICT = "to best", "95% CI", "p (Holm)", "verdict"
DISPENSABLE = ((), (INTERVAL, P), (INTERVAL, P, DIFFERENCE), (INTERVAL, P, DIFFERENCE, words.unit(TEST_METRIC)))
"""Columns that go where there is no room for all."""


def terminal_text(comparison: Comparison, width: int, csv_names: tuple[str, str], folder: Path) -> str:
    """Ranking, explanation, and the runs that have not finished.

    Args:
        comparison: what is shown.
        width: of the terminal, in characters.
        csv_names: the files that hold all settings, and all runs.
        folder: where they are; runs below it are named as seen from there.
    """
    parts = [f"{words.summary(comparison)}, by {comparison.metric}"]
    if comparison.rows:
        parts.append(as_text(ranking_table(comparison, width), width))
    if len(comparison.rows) > MOST_ROWS:
        parts.append(f"... {len(comparison.rows) - MOST_ROWS:,} more in {csv_names[0]}")
    sentences = [words.explanation(comparison), *comparison.notes]
    parts += [textwrap.fill(sentence, width, break_on_hyphens=False) for sentence in sentences if sentence]
    if comparison.unranked:
        parts += ["not ranked, as they have not finished:"]
        parts.append(as_text(unranked_table(comparison.unranked[:MOST_UNRANKED], width, folder), width))
    if len(comparison.unranked) > MOST_UNRANKED:
        parts.append(f"... {len(comparison.unranked) - MOST_UNRANKED:,} more in {csv_names[1]}")
    return "\n".join(parts)


def ranking_table(comparison: Comparison, width: int) -> Table:
    """The best settings: with all columns, or as many as fit; at last all that differs in one."""
    rows = comparison.rows[:MOST_ROWS]
    settings = {key: [words.value_text(row.values[key]) for row in rows] for key in comparison.columns}
    in_one = {SETTING: [words.setting_words(row.values) for row in rows]} if comparison.columns else {}
    numbers = _numbers(comparison.metric, rows)
    for heading, dropped in itertools.product((settings, in_one), DISPENSABLE):
        rest = {name: column for name, column in numbers.items() if name not in dropped}
        columns = {"#": [str(row.rank or words.NOTHING) for row in rows], **heading, **rest}
        headings = [_broken(name) for name in columns]
        table = grid(headings, list(zip(*columns.values(), strict=True)), {VERDICT, *map(_broken, heading)})
        needed = widths(table)
        if (needed.minimum if heading is in_one else needed.maximum) <= width:
            break
    return table


def _broken(name: str) -> str:
    """A heading on several lines."""
    return re.sub(r"(?<=[./])(?=.)| (?=\()", "\n", name)


def _numbers(metric: str, rows: Sequence[Row]) -> dict[str, list[str]]:
    columns = {
        "n": [str(row.score.n) for row in rows],
        words.unit(metric): [words.score(metric, row.score) for row in rows],
        DIFFERENCE: [words.number(metric, row.difference.mean, signed=True) for row in rows],
        INTERVAL: [words.interval(metric, row.difference) for row in rows],
        P: [words.probability(row.corrected) for row in rows],
        VERDICT: [row.verdict for row in rows],
        words.unit(TEST_METRIC): [words.score(TEST_METRIC, row.test) for row in rows],
    }
    columns[DIFFERENCE][0] = columns[INTERVAL][0] = words.NOTHING
    empty = {words.NOTHING}
    return {name: column for name, column in columns.items() if set(column) != empty}


def unranked_table(runs: Sequence[RunResult], width: int, folder: Path) -> Table:
    """Status and epochs of each, and what went wrong."""
    below = [run.folder != folder and run.folder.is_relative_to(folder) for run in runs]
    columns = {
        "run": [
            words.from_folder(run.folder, folder) if is_below else shown(run.folder)
            for run, is_below in zip(runs, below, strict=True)
        ],
        "status": [run.status for run in runs],
        "epochs": [words.NOTHING if run.epochs is None else str(run.epochs) for run in runs],
        "error": [(run.error or "")[:width] for run in runs],
    }
    columns = {name: column for name, column in columns.items() if any(column)}
    return grid(list(columns), list(zip(*columns.values(), strict=True)), ("run", "status", "error"))


def terminal_width(fallback: int = 80) -> int:
    """Of the terminal that is written to, but no less than 80."""
    try:
        return max(fallback, os.get_terminal_size(1).columns)
    except OSError:
        return fallback
