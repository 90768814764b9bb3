"""Settings and scores as people read them."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmnist.compare.ranking import BEST, NOISE, UNKNOWN, WORSE, Comparison
from fmnist.compare.reading import STATUSES
from fmnist.compare.statistics import LEVEL, Difference, Sample

NOTHING = "-"
LONGEST_FRACTION = 8  # characters


def value_text(value: Any) -> str:
    """A setting's value as YAML would have it, on one line, long fractions rounded; a dash where it isn't set."""
    if value is None:
        return NOTHING
    if isinstance(value, float) and len(str(value)) > LONGEST_FRACTION:
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if text.isprintable() and text else json.dumps(text)


def setting_words(values: Mapping[str, Any]) -> str:
    """What is set, as it is typed: key=value key=value."""
    return " ".join(f"{key}={value_text(value)}" for key, value in values.items() if value is not None)


def is_share(metric: str) -> bool:
    """Whether it is shown in percent."""
    return "accuracy" in metric


def unit(metric: str) -> str:
    """The metric with its unit, for a heading."""
    return f"{metric} (%)" if is_share(metric) else metric


def number(metric: str, value: float, *, signed: bool = False) -> str:
    """A value of a metric, or a difference of two."""
    if math.isnan(value):
        return NOTHING
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.2f}" if is_share(metric) else f"{value:{sign}.4f}"


def score(metric: str, sample: Sample) -> str:
    """Mean and standard deviation."""
    if math.isnan(sample.mean):
        return NOTHING
    spread = "" if math.isnan(sample.sd) else f" ± {number(metric, sample.sd)}"
    return number(metric, sample.mean) + spread


def interval(metric: str, difference: Difference) -> str:
    """The 95 % confidence interval."""
    if math.isnan(difference.low):
        return NOTHING
    return f"{number(metric, difference.low, signed=True)} to {number(metric, difference.high, signed=True)}"


def probability(p: float) -> str:
    return NOTHING if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def explanation(comparison: Comparison) -> str:
    """What was tested, and what the verdicts mean."""
    verdicts = {row.verdict for row in comparison.rows}
    if len(comparison.rows) < 2:
        return ""
    parts = []
    if comparison.tested:
        corrected = f", Holm-corrected for {comparison.tested:,} comparisons" if comparison.tested > 1 else ""
        meanings = {
            WORSE: f"worse: told apart at the {LEVEL:.0%} level",
            NOISE: "noise: not told apart from the best",
            UNKNOWN: "unknown: one seed on either side, or no value",
        }
        said = "; ".join(text for verdict, text in meanings.items() if verdict in verdicts)
        parts.append(
            f"Each setting was tested against the best by Welch's t-test over seeds (two-sided{corrected}); {said}."
        )
    else:
        parts.append("No difference could be tested: that takes two seeds or more of the best and of another setting.")
    if BEST in verdicts:
        ranked = sum(row.rank is not None for row in comparison.rows)
        parts.append(f"The best is the luckiest of {ranked:,}, too: with new seeds it will tend to be a little worse.")
    return " ".join(parts)


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def summary(comparison: Comparison) -> str:
    """How many there are of what."""
    runs = sum(len(row.runs) for row in comparison.rows)
    text = f"{counted(runs, 'run')} of {counted(len(comparison.rows), 'setting')}"
    others = Counter(run.status for run in comparison.unranked)
    return ", ".join([text, *(f"{others[status]:,} {status}" for status in STATUSES if others[status])])


def from_folder(path: Path, folder: Path) -> str:
    """The path as seen from a folder, so that both can be moved together."""
    return os.path.relpath(path, folder)
