"""A comparison as files: two tables and a page."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fmnist.compare.formatting import from_folder
from fmnist.compare.page import comparison_page
from fmnist.compare.ranking import Comparison, Row, compare
from fmnist.compare.reading import RunResult
from fmnist.compare.settings import columns
from fmnist.compare.terminal import terminal_text, terminal_width
from fmnist.runs.files import atomic_write

SETTINGS_FILE, RUNS_FILE, PAGE_FILE = "comparison.csv", "runs.csv", "comparison.html"


def write_comparison(folder: Path, runs: Sequence[RunResult], metric: str | None = None) -> str:
    """Writes comparison.csv, runs.csv and comparison.html, and returns what the terminal is to show.

    Args:
        folder: where they go, made where it is missing; folders of runs stand in them as seen from there.
        runs: as `read_runs` gives them.
        metric: to rank by; None takes what the runs monitored.

    Raises:
        ValueError: if no run has the metric, or it is not one to choose by. Then nothing is written.
    """
    comparison = compare(runs, metric)
    width = terminal_width()
    texts = {
        SETTINGS_FILE: settings_csv(comparison, folder),
        RUNS_FILE: runs_csv(runs, comparison, folder),
        PAGE_FILE: comparison_page(comparison, folder, (SETTINGS_FILE, RUNS_FILE)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return terminal_text(comparison, width, (SETTINGS_FILE, RUNS_FILE), folder)


def settings_csv(comparison: Comparison, folder: Path) -> str:
    """A row for each setting, best first, in full precision; differences are to the best."""
    heading = ["rank", *comparison.columns, "n", "mean", "sd", "difference", "ci_low", "ci_high", "p", "p_holm"]
    heading += ["verdict", "test_n", "test_mean", "test_sd", "seconds", "seeds", "folders"]
    return _csv(heading, (_setting_cells(comparison, row, folder) for row in comparison.rows))


def _setting_cells(comparison: Comparison, row: Row, folder: Path) -> list[Any]:
    difference = row.difference
    return [
        row.rank,
        *(row.values[key] for key in comparison.columns),
        *(row.score.n, row.score.mean, row.score.sd),
        *(difference.mean, difference.low, difference.high, difference.p, row.corrected),
        row.verdict,
        *(row.test.n, row.test.mean, row.test.sd),
        row.seconds,
        ";".join(str(run.seed) for run in row.runs),
        ";".join(from_folder(run.folder, folder) for run in row.runs),
    ]


def runs_csv(runs: Sequence[RunResult], comparison: Comparison, folder: Path) -> str:
    """A row for each run, finished or not, in the order in which they were found."""
    settings = columns([run.settings for run in runs], [run.choices for run in runs])
    ranks = {run.folder: row.rank for row in comparison.rows for run in row.runs}
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    heading = ["folder", "status", "rank", "seed", *settings, "epochs", *metrics, "error"]
    rows = (
        [
            from_folder(run.folder, folder),
            *(run.status, ranks.get(run.folder), run.seed),
            *(column[number] for column in settings.values()),
            run.epochs,
            *(run.metrics.get(name) for name in metrics),
            run.error,
        ]
        for number, run in enumerate(runs)
    )
    return _csv(heading, rows)


def _csv(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    """What a program can read again: numbers in full, nothing for what there isn't."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
