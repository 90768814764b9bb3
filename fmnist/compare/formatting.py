"""Texts of a comparison: its numbers, its ranking, its sentences."""

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from fmnist.compare.ranking import NOT_SIGNIFICANT, TEST_METRIC, UNKNOWN, WORSE, Comparison
from fmnist.compare.reading import STATUSES
from fmnist.compare.statistics import LEVEL

SETTINGS_FILE, RUNS_FILE, PAGE_FILE = "comparison.csv", "runs.csv", "comparison.html"
NOTHING = "-"
LONGEST_NUMBER = 8  # characters


def short(value: Any) -> str:
    """Return a setting's text with long fractions rounded; a dash if it isn't set."""
    if not isinstance(value, str):
        return NOTHING
    try:
        return f"{float(value):.4g}" if len(value) > LONGEST_NUMBER else value
    except ValueError:
        return value


def is_share(metric: str) -> bool:
    """Return whether a metric is shown in percent."""
    return "accuracy" in metric


def unit(metric: str) -> str:
    """Return a metric with its unit, for a heading."""
    return f"{metric} (%)" if is_share(metric) else metric


def number(metric: str, value: float, *, signed: bool = False) -> str:
    """Return a value of a metric, or a difference of two, as text."""
    if math.isnan(value):
        return NOTHING
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.2f}" if is_share(metric) else f"{value:{sign}.4f}"


def score(metric: str, mean: float, std: float) -> str:
    """Return mean ± standard deviation as text."""
    return number(metric, mean) + ("" if math.isnan(std) else f" ± {number(metric, std)}")


def ranking_table(comparison: Comparison, most: int) -> DataFrame:
    """Return the first rows of a ranking as texts: a column for each setting that differs, and for each result."""
    metric, rows = comparison.metric, []
    for index, row in comparison.scores.head(most).iterrows():
        low, high = (number(metric, row[name], signed=True) for name in ("ci_low", "ci_high"))
        rows.append(
            {
                "#": NOTHING if pd.isna(row["rank"]) else str(row["rank"]),
                **{key: short(value) for key, value in comparison.settings.loc[index].items()},
                "n": str(row["n"]),
                unit(metric): score(metric, row["mean"], row["std"]),
                "to best": NOTHING if index == 0 else number(metric, row["difference"], signed=True),
                "95% CI": NOTHING if low == NOTHING else f"{low} to {high}",
                "p (Holm)": NOTHING if math.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}",
                "verdict": row["verdict"],
                unit(TEST_METRIC): score(TEST_METRIC, row["test_mean"], row["test_std"]),
                "seconds": NOTHING if math.isnan(row["seconds"]) else f"{row['seconds']:,.0f}",
            }
        )
    return DataFrame(rows)


def sentences(comparison: Comparison) -> list[str]:
    """Return what was tested, what the verdicts mean, and the notes."""
    found, scores = [], comparison.scores
    if tested := scores["p"].count():
        corrected = f", Holm-corrected for {tested:,} comparisons" if tested > 1 else ""
        found.append(f"Each setting was tested against the best by Welch's t-test over seeds (two-sided{corrected}).")
        found.append(f"{WORSE}: p is below {LEVEL}; {NOT_SIGNIFICANT}: the best may be ahead by chance.")
    if UNKNOWN in set(scores["verdict"]):
        found.append(f"{UNKNOWN}: not tested, as that takes two seeds or more on both sides that don't all tie.")
    if (ranked := scores["rank"].count()) > 1:
        found.append(f"Selection bias: the best of {ranked:,} is likely to be a little worse with new seeds.")
    return [*found, *comparison.notes]


def counted(number: int, what: str) -> str:
    """Return "1 run", "2 runs"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def summary(comparison: Comparison) -> str:
    """Return how many runs and settings were ranked, and how many runs haven't finished."""
    runs = counted(sum(map(len, comparison.runs)), "run")
    others = Counter(run.status for run in comparison.unranked)
    unranked = [f"{others[status]:,} {status}" for status in STATUSES if others[status]]
    return ", ".join([f"{runs} of {counted(len(comparison.runs), 'setting')}", *unranked])


def relative(path: Path, folder: Path) -> str:
    """Return the path as seen from a folder, so that both can be moved together."""
    return os.path.relpath(path, folder)
