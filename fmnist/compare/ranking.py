"""Runs with equal settings as one row, best first, each tested against the best."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fmnist.compare.reading import FINISHED, RunResult, natural
from fmnist.compare.settings import columns, identity
from fmnist.compare.statistics import LEVEL, Difference, Sample, holm, sample, welch
from fmnist.config.validation import did_you_mean
from fmnist.training.metric_names import direction

DEFAULT_METRIC = "val/accuracy"
TEST_METRIC = "test/accuracy"
BEST, NOISE, WORSE, UNKNOWN = "best", "noise", "worse", "unknown"


@dataclass(frozen=True)
class Row:
    """A setting: what its seeds gave."""

    rank: int | None
    """From 1; None without a value of the metric."""
    values: Mapping[str, Any]
    """Of the settings that differ, None where one isn't set."""
    runs: Sequence[RunResult]
    """One of each seed."""
    score: Sample
    """Of the metric."""
    test: Sample
    """Test accuracy of those runs that measured it."""
    seconds: float
    """Of training, the median."""
    difference: Difference
    """To the best."""
    corrected: float
    """The difference's p-value by Holm's method."""
    verdict: str
    """best, worse, noise (no difference shown), or unknown (a single seed, or no value)."""


@dataclass(frozen=True)
class Comparison:
    """Settings by rank, and what could not be ranked."""

    metric: str
    columns: Sequence[str]
    """The settings that differ."""
    rows: Sequence[Row]
    unranked: Sequence[RunResult]
    """Runs that have not finished."""
    notes: Sequence[str]
    """Sentences: what was taken for what."""

    @property
    def tested(self) -> int:
        """Settings that could be tested against the best."""
        return sum(not math.isnan(row.corrected) for row in self.rows)


def compare(runs: Sequence[RunResult], metric: str | None = None) -> Comparison:
    """Ranks the finished runs' settings by a validation metric.

    Args:
        runs: as `read_runs` gives them.
        metric: None takes what the runs monitored.

    Raises:
        ValueError: if no run has the metric, or it is not one to choose by.
    """
    finished = [run for run in runs if run.status == FINISHED]
    metric, notes = choose_metric(metric, finished)
    settings: dict[frozenset[tuple[str, Any]], list[RunResult]] = defaultdict(list)
    for run in finished:
        settings[identity(run.settings)].append(run)
    members = [list(newest_of_each_seed(each)) for each in settings.values()]
    repeated = len(finished) - sum(map(len, members))
    if repeated:
        notes.append(f"Of runs with the same setting and seed only the newest counts: {repeated:,} left out.")
    firsts = [each[0] for each in members]
    table = columns([run.settings for run in firsts], [run.choices for run in firsts])
    values = [{name: column[i] for name, column in table.items()} for i in range(len(members))]
    rows = _rank(metric, members, values)
    unranked = [run for run in runs if run.status != FINISHED]
    return Comparison(metric, list(table), rows, unranked, notes)


def choose_metric(metric: str | None, runs: Sequence[RunResult]) -> tuple[str, list[str]]:
    """The metric to rank by, and what has to be said about it.

    Raises:
        ValueError: if no run has it, or it is not one to choose by.
    """
    if metric is None:
        monitored = {run.monitor for run in runs}
        (agreed,) = monitored if len(monitored) == 1 else (None,)
        if agreed and agreed.startswith("val/"):
            return agreed, []
        reason = "monitored different metrics" if len(monitored) > 1 else "don't say what they monitored"
        note = f"The runs {reason}: they are ranked by {DEFAULT_METRIC}; metric=... takes another one."
        return DEFAULT_METRIC, [note] if runs else []
    if metric.startswith("test/"):
        raise ValueError(f"metric={metric}: test images are for the result, not for choosing; take one of val/...")
    known = {name for run in runs for name in run.metrics if name.startswith("val/")}
    if runs and metric not in known:
        raise ValueError(f"metric={metric}: no finished run has it{did_you_mean(metric, known)}")
    return metric, []


def newest_of_each_seed(runs: Iterable[RunResult]) -> Iterable[RunResult]:
    """One run of each seed: the one that ended last."""
    return {run.seed: run for run in sorted(runs, key=lambda run: run.ended)}.values()


def _rank(metric: str, members: Sequence[Sequence[RunResult]], values: Sequence[Mapping[str, Any]]) -> list[Row]:
    scores = [sample([run.metrics.get(metric, math.nan) for run in each]) for each in members]
    sign = 1 if direction(metric) == "min" else -1

    def place(index: int) -> tuple[bool, float, int]:
        mean = scores[index].mean
        return (math.isnan(mean), 0.0 if math.isnan(mean) else sign * mean, -scores[index].n)

    order = sorted(range(len(members)), key=place)
    best = scores[order[0]] if order else None
    to_itself = [Difference(best.mean - best.mean, math.nan, math.nan, math.nan)] if best else []
    differences = [*to_itself, *(welch(scores[index], best) for index in order[1:] if best)]
    corrected = holm([difference.p for difference in differences])
    rows = []
    for number, index in enumerate(order):
        score, runs = scores[index], members[index]
        told = not math.isnan(score.mean)
        rows.append(
            Row(
                rank=number + 1 if told else None,
                values=values[index],
                runs=sorted(runs, key=lambda run: natural(str(run.seed))),
                score=score,
                test=sample([run.metrics[TEST_METRIC] for run in runs if TEST_METRIC in run.metrics]),
                seconds=_median([run.metrics.get("train/seconds", math.nan) for run in runs]),
                difference=differences[number],
                corrected=corrected[number],
                verdict=BEST if told and number == 0 else _verdict(corrected[number]),
            )
        )
    return rows


def _verdict(corrected: float) -> str:
    return UNKNOWN if math.isnan(corrected) else WORSE if corrected < LEVEL else NOISE


def _median(values: Sequence[float]) -> float:
    told = [value for value in values if not math.isnan(value)]
    return median(told) if told else math.nan
