"""A comparison as files: two tables and a page."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmnist.comparison.page import comparison_page
from fmnist.comparison.ranking import Comparison, Row, compare
from fmnist.comparison.reading import RunResult
from fmnist.comparison.settings import columns
from fmnist.comparison.terminal import terminal_text, terminal_width
from fmnist.comparison.words import from_folder
from fmnist.runs import write_whole

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
        write_whole(folder / name, text)
    return terminal_text(comparison, width, (SETTINGS_FILE, RUNS_FILE))


def settings_csv(comparison: Comparison, folder: Path) -> str:
    """A row for each setting, best first, in full precision; differences are to the best."""
    return _csv([_setting_cells(row, folder) for row in comparison.rows])


def _setting_cells(row: Row, folder: Path) -> dict[str, Any]:
    return {
        "rank": row.rank,
        **row.values,
        "n": row.score.n,
        "mean": row.score.mean,
        "sd": row.score.sd,
        "difference": row.difference.mean,
        "ci_low": row.difference.low,
        "ci_high": row.difference.high,
        "p": row.difference.p,
        "p_holm": row.corrected,
        "verdict": row.verdict,
        "test_n": row.test.n,
        "test_mean": row.test.mean,
        "test_sd": row.test.sd,
        "seconds": row.seconds,
        "seeds": ";".join(str(run.seed) for run in row.runs),
        "folders": ";".join(from_folder(run.folder, folder) for run in row.runs),
    }


def runs_csv(runs: Sequence[RunResult], comparison: Comparison, folder: Path) -> str:
    """A row for each run, finished or not, in the order in which they were found."""
    table = columns([run.settings for run in runs], [run.choices for run in runs])
    ranks = {run.folder: row.rank for row in comparison.rows for run in row.runs}
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    return _csv(
        {
            "folder": from_folder(run.folder, folder),
            "status": run.status,
            "rank": ranks.get(run.folder),
            "seed": run.seed,
            **{key: column[i] for key, column in table.items()},
            "epochs": run.epochs,
            **{name: run.metrics.get(name) for name in metrics},
            "error": run.error,
        }
        for i, run in enumerate(runs)
    )


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow(map(_cell, row.values()))
    return text.getvalue()


def _cell(value: Any) -> str:
    """What a program can read again: numbers in full, nothing for what there isn't."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
