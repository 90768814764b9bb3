"""A comparison as files: two tables and a page."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup
from pandas import DataFrame

from fmnist.compare import formatting
from fmnist.compare.charts import setting_chart
from fmnist.compare.formatting import relative
from fmnist.compare.ranking import Comparison, compare, differing_settings
from fmnist.compare.reading import RunResult
from fmnist.compare.terminal import terminal_text, terminal_width
from fmnist.plotting.frame import render, svg
from fmnist.runs.files import atomic_write
from fmnist.runs.run import Run

MAX_ROWS = 500
MAX_CHARTS = 24
MAX_LINKS = 20  # of a row


def write_comparison(folder: Path, runs: Sequence[RunResult], metric: str | None = None) -> str:
    """Write comparison.csv, runs.csv and comparison.html, and return the text for the terminal.

    Args:
        folder: of the files, made if missing; the runs are named as seen from there.
        runs: see `read_runs`.
        metric: to rank by; None takes the one that the runs monitored.

    Raises:
        ValueError: if no finished run has the metric, or it is one of the test images. Then nothing is written.
    """
    comparison = compare(runs, metric)
    texts = {
        formatting.SETTINGS_FILE: settings_csv(comparison, folder),
        formatting.RUNS_FILE: runs_csv(runs, comparison, folder),
        formatting.PAGE_FILE: page(comparison, folder),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return terminal_text(comparison, terminal_width(), folder)


def settings_csv(comparison: Comparison, folder: Path) -> str:
    """Return a row for each setting, best first, with numbers in full precision."""
    seeds = [";".join(run.seed for run in runs) for runs in comparison.runs]
    folders = [";".join(relative(run.folder, folder) for run in runs) for runs in comparison.runs]
    scores = comparison.scores.assign(seeds=seeds, folders=folders)
    return _csv(scores[["rank"]], comparison.settings, scores.drop(columns="rank"))


def runs_csv(runs: Sequence[RunResult], comparison: Comparison, folder: Path) -> str:
    """Return a row for each run, finished or not, in the order in which they were found."""
    ranks = zip(comparison.scores["rank"], comparison.runs, strict=True)
    rank_of = {run.folder: rank for rank, members in ranks for run in members}
    names = [(relative(run.folder, folder), run.status, rank_of.get(run.folder), run.seed) for run in runs]
    return _csv(
        DataFrame(names, columns=["folder", "status", "rank", "seed"]).astype({"rank": "Int64"}),
        differing_settings(runs),
        DataFrame({"epochs": [run.epochs for run in runs]}),
        DataFrame([run.metrics for run in runs]),
        DataFrame({"error": [run.error for run in runs]}),
    )


def _csv(*tables: DataFrame) -> str:
    return str(pd.concat(tables, axis=1).to_csv(index=False))


def page(comparison: Comparison, folder: Path) -> str:
    """Return the page as HTML, which lies in `folder`."""
    runs, unranked = comparison.runs, comparison.unranked
    rows = formatting.ranking_table(comparison, MAX_ROWS).to_dict("records")
    return render(
        "compare/comparison.html",
        summary=formatting.summary(comparison),
        metric=comparison.metric,
        score=formatting.unit(comparison.metric),
        best=rows[0] if comparison.scores["rank"].count() else None,
        settings=list(comparison.settings),
        sentences=formatting.sentences(comparison),
        rows=rows,
        links=[[_link(run, folder) for run in members[:MAX_LINKS]] for members in runs[:MAX_ROWS]],
        more_links=[len(members) - MAX_LINKS for members in runs[:MAX_ROWS]],
        more_rows=len(runs) - MAX_ROWS,
        charts=setting_charts(comparison),
        unranked=[(relative(run.folder, folder), run) for run in unranked[:MAX_ROWS]],
        more_unranked=len(unranked) - MAX_ROWS,
    )


def _link(run: RunResult, folder: Path) -> tuple[str, str, str | None]:
    """Return seed, folder, and the address of the report if there is one."""
    name = relative(run.folder, folder)
    report = Run(run.folder).report_file
    return run.seed, name, quote(f"./{name}/{report.name}") if report.is_file() else None


def setting_charts(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Return the first settings that differ among the ranked runs, each with its chart."""
    metric = comparison.metric
    factor = 100 if formatting.is_share(metric) else 1
    rows = [(row, run) for row in range(comparison.scores["rank"].count()) for run in comparison.runs[row]]
    scores = [factor * run.metrics[metric] for _, run in rows]
    values = comparison.settings.iloc[[row for row, _ in rows]].map(formatting.short, na_action="ignore")
    keys = [key for key in values if values[key].nunique(dropna=False) > 1]
    unit = formatting.unit(metric)
    return [(key, svg(setting_chart(key, values[key].tolist(), scores, unit))) for key in keys[:MAX_CHARTS]]
