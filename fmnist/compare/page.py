"""A comparison as a page: words and charts for the template."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from fmnist.compare import formatting as words
from fmnist.compare.ranking import TEST_METRIC, Comparison, Row
from fmnist.compare.reading import RunResult
from fmnist.compare.sweep_charts import MOST_LINES, parallel_chart, setting_chart
from fmnist.plotting.frame import render, svg
from fmnist.runs.run import Run

MOST_ROWS = 500
MOST_CHARTS = 24
MOST_AXES = 10
MOST_RUNS = 20  # of a row that are named


def comparison_page(comparison: Comparison, folder: Path, csv_names: tuple[str, str]) -> str:
    """The page as HTML.

    Args:
        comparison: what is shown.
        folder: where the page will lie, for the links to the runs.
        csv_names: the files beside it that hold all settings, and all runs.
    """
    rows = comparison.rows[:MOST_ROWS]
    return render(
        "compare/comparison.html",
        summary=words.summary(comparison),
        metric=comparison.metric,
        best=_best(comparison),
        sentences=[sentence for sentence in (words.explanation(comparison), *comparison.notes) if sentence],
        headings=comparison.columns,
        unit=words.unit(comparison.metric),
        test_unit=words.unit(TEST_METRIC),
        rows=[_cells(comparison, row, folder) for row in rows],
        more=len(comparison.rows) - len(rows),
        ranked=sum(row.rank is not None for row in comparison.rows),
        charts=_setting_charts(comparison),
        charts_left_out=len(comparison.columns) - MOST_CHARTS,
        parallel=_parallel(comparison),
        unranked=[_unranked(run, folder) for run in comparison.unranked[:MOST_ROWS]],
        more_unranked=len(comparison.unranked) - MOST_ROWS,
        csv_names=csv_names,
    )


def _best(comparison: Comparison) -> Mapping[str, Any] | None:
    """Of the first row, where it has a rank."""
    row = comparison.rows[0] if comparison.rows else None
    if row is None or row.rank is None:
        return None
    metric = comparison.metric
    percent = "%" if words.is_share(metric) else ""
    return {
        "value": words.number(metric, row.score.mean) + percent,
        "n": row.score.n,
        "sd": None if math.isnan(row.score.sd) else words.number(metric, row.score.sd),
        "settings": {key: words.value_text(value) for key, value in row.values.items() if value is not None},
        "test": None if math.isnan(row.test.mean) else words.score(TEST_METRIC, row.test),
        "seconds": None if math.isnan(row.seconds) else f"{row.seconds:,.0f}",
    }


def _cells(comparison: Comparison, row: Row, folder: Path) -> Mapping[str, Any]:
    metric = comparison.metric
    first = row.verdict == "best"
    return {
        "rank": row.rank or words.NOTHING,
        "settings": [words.value_text(row.values[key]) for key in comparison.columns],
        "n": row.score.n,
        "score": words.score(metric, row.score),
        "difference": words.NOTHING if first else words.number(metric, row.difference.mean, signed=True),
        "interval": words.NOTHING if first else words.interval(metric, row.difference),
        "p": words.probability(row.corrected),
        "verdict": row.verdict,
        "test": words.score(TEST_METRIC, row.test),
        "seconds": words.NOTHING if math.isnan(row.seconds) else f"{row.seconds:,.0f}",
        "runs": [_link(run, folder) for run in row.runs[:MOST_RUNS]],
        "more": len(row.runs) - MOST_RUNS,
    }


def _link(run: RunResult, folder: Path) -> tuple[str, str, str | None]:
    """Seed, folder, and the address of its report, where there is one."""
    name = words.from_folder(run.folder, folder)
    report = Run(run.folder).report_file
    address = quote(f"./{name}/{report.name}") if report.is_file() else None
    return str(run.seed), name, address


def _unranked(run: RunResult, folder: Path) -> Mapping[str, Any]:
    return {
        "name": words.from_folder(run.folder, folder),
        "status": run.status,
        "epochs": words.NOTHING if run.epochs is None else run.epochs,
        "overrides": " ".join(run.overrides),
        "error": run.error or "",
    }


def _setting_charts(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Setting, and the chart of its values; what isn't set in any finished run with a score has none."""
    ranked = [row for row in comparison.rows if row.rank is not None]
    factor = 100 if words.is_share(comparison.metric) else 1
    scores = [factor * run.metrics[comparison.metric] for row in ranked for run in row.runs]
    charts = []
    for key in comparison.columns[:MOST_CHARTS]:
        values = [row.values[key] for row in ranked for _ in row.runs]
        if len(set(values)) > 1:
            chart = setting_chart(key, values, scores, words.unit(comparison.metric), _label)
            charts.append((key, svg(chart)))
    return charts


def _label(value: Any) -> str:
    return "not set" if value is None else words.value_text(value)


def _parallel(comparison: Comparison) -> tuple[Markup, int, int] | None:
    """The chart, how many settings it shows, and how many keys have no axis in it."""
    ranked = [row for row in comparison.rows if row.rank is not None][:MOST_LINES]
    varying = [key for key in comparison.columns if len({row.values[key] for row in ranked}) > 1]
    if len(ranked) < 2 or not varying:
        return None
    factor = 100 if words.is_share(comparison.metric) else 1
    axes: dict[str, Sequence[Any]] = {key: [row.values[key] for row in ranked] for key in varying[:MOST_AXES]}
    scores = [factor * row.score.mean for row in ranked]
    chart = parallel_chart(axes, scores, words.unit(comparison.metric), _label)
    return svg(chart), len(ranked), len(varying) - MOST_AXES
