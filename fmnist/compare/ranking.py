"""Rank settings: runs that differ only in their seed are one row, tested against the best."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from pandas import DataFrame, Series

from fmnist.compare.reading import FINISHED, RunResult, natural
from fmnist.compare.statistics import LEVEL, Difference, Sample, holm, welch
from fmnist.config.validation import did_you_mean
from fmnist.training.metric_names import direction

DEFAULT_METRIC = "val/accuracy"
TEST_METRIC = "test/accuracy"
BEST, NOT_SIGNIFICANT, WORSE, UNKNOWN = "best", "no significant difference", "worse", "unknown"
PLACES = ("trainer",)
"""Groups whose options are mainly about where a run takes place: each of their keys is a column, the option isn't."""

SCORES = ["rank", "n", "mean", "std", "difference", "ci_low", "ci_high", "p", "p_holm", "verdict"]
SCORES += ["test_n", "test_mean", "test_std", "seconds"]
"""Columns of a ranking: differences are to the best setting, seconds are those of training, the median."""


@dataclass(frozen=True)
class Comparison:
    """Settings by rank, best first, and the runs that aren't ranked."""

    metric: str
    settings: DataFrame
    """A row for each setting, a column of texts for each key that differs; NaN where a key isn't set."""
    scores: DataFrame
    """The same rows, with the columns `SCORES`."""
    runs: Sequence[Sequence[RunResult]]
    """One run of each seed, for each row."""
    unranked: Sequence[RunResult]
    """Runs that haven't finished."""
    notes: Sequence[str]
    """Sentences about what was assumed and left out."""


def compare(runs: Sequence[RunResult], metric: str | None = None) -> Comparison:
    """Rank the settings of the finished runs by a validation metric.

    Args:
        runs: see `read_runs`.
        metric: None takes the one that the runs monitored.

    Raises:
        ValueError: if no finished run has the metric, or it is one of the test images.
    """
    finished = sorted((run for run in runs if run.status == FINISHED), key=lambda run: natural(run.seed))
    metric, notes = choose_metric(metric, finished)
    table = DataFrame(
        {
            "run": finished,
            "setting": [json.dumps(run.settings, sort_keys=True) for run in finished],
            "seed": [run.seed for run in finished],
            "ended": pd.to_datetime([run.ended for run in finished], utc=True, format="ISO8601", errors="coerce"),
            "value": [run.metrics.get(metric, math.nan) for run in finished],
            "test": [run.metrics.get(TEST_METRIC, math.nan) for run in finished],
            "seconds": [run.metrics.get("train/seconds", math.nan) for run in finished],
        }
    )
    by_end = table.sort_values("ended", na_position="first", kind="stable")
    newest = by_end.drop_duplicates(["setting", "seed"], keep="last").sort_index()
    if repeated := len(table) - len(newest):
        notes.append(f"Of runs with the same setting and seed only the newest counts: {repeated:,} left out.")
    scores = _scores(newest, metric)
    members = newest.groupby("setting", sort=False)["run"].agg(list).reindex(scores.index).tolist()
    settings = differing_settings([each[0] for each in members])
    unranked = [run for run in runs if run.status != FINISHED]
    return Comparison(metric, settings, scores.reset_index(drop=True), members, unranked, notes)


def choose_metric(metric: str | None, runs: Sequence[RunResult]) -> tuple[str, list[str]]:
    """Return the metric to rank by, and notes about it.

    Raises:
        ValueError: if no run has it, or it is one of the test images.
    """
    if metric is None:
        monitored = {run.settings.get("monitor", "") for run in runs}
        if len(monitored) == 1 and (common := monitored.pop()).startswith("val/"):
            return common, []
        note = f"The runs did not monitor one validation metric: they are ranked by {DEFAULT_METRIC}."
        return DEFAULT_METRIC, [note] if runs else []
    if metric.startswith("test/"):
        raise ValueError(f"metric={metric}: test images are for the final result, not for choosing; take val/...")
    known = {name for run in runs for name in run.metrics if name.startswith("val/")}
    if runs and metric not in known:
        raise ValueError(f"metric={metric}: no finished run has it{did_you_mean(metric, known)}")
    return metric, []


def _scores(runs: DataFrame, metric: str) -> DataFrame:
    """Return the `scores` of a comparison, with the settings as index."""
    groups = runs.groupby("setting", sort=False)
    scores = DataFrame(
        {
            "n": groups.size(),
            "mean": groups["value"].mean(skipna=False),
            "std": groups["value"].std(skipna=False),
            "test_n": groups["test"].count(),
            "test_mean": groups["test"].mean(),
            "test_std": groups["test"].std(),
            "seconds": groups["seconds"].median(),
        }
    )
    scores = scores.sort_values(["mean", "n"], ascending=[direction(metric) == "min", False], kind="stable")
    samples = [Sample(*values) for values in zip(scores["n"], scores["mean"], scores["std"], strict=True)]
    differences = [welch(each, samples[0]) for each in samples]
    if differences:
        differences[0] = Difference(differences[0].mean)
    scores["rank"] = Series(range(1, len(scores) + 1), index=scores.index, dtype="Int64").where(scores["mean"].notna())
    scores["difference"] = [each.mean for each in differences]
    scores["ci_low"] = [each.low for each in differences]
    scores["ci_high"] = [each.high for each in differences]
    scores["p"] = [each.p for each in differences]
    scores["p_holm"] = holm([each.p for each in differences])
    scores["verdict"] = [_verdict(p) for p in scores["p_holm"]]
    scores.loc[scores["rank"] == 1, "verdict"] = BEST
    return scores[SCORES]


def _verdict(p: float) -> str:
    return UNKNOWN if math.isnan(p) else WORSE if p < LEVEL else NOT_SIGNIFICANT


def differing_settings(runs: Sequence[RunResult]) -> DataFrame:
    """Return a row for each run, and a column for each setting that differs.

    If the choice of a group differs (optimizer=sgd, optimizer=adam), it is a column. A key of that group is one only
    if it differs among runs with the same choice.
    """
    settings = DataFrame([run.settings for run in runs], dtype=object)
    choices = DataFrame([run.choices for run in runs], dtype=object)
    known = settings.dropna(how="all")  # a run that failed early has none
    varying: dict[str, list[str]] = defaultdict(list)
    for key in settings:
        if known[key].nunique(dropna=False) > 1:
            varying[key.partition(".")[0]].append(key)
    columns = []
    for group, keys in varying.items():
        if group not in PLACES and group in choices and choices[group].nunique(dropna=False) > 1 and keys != [group]:
            columns.append(choices[group])
            same_choice = known[keys].groupby(choices[group], dropna=False)
            keys = [key for key in keys if key != group and same_choice[key].nunique(dropna=False).max() > 1]
        columns.append(settings[keys])
    return pd.concat(columns, axis=1) if columns else DataFrame(index=settings.index)
