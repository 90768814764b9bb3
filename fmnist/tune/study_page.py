"""A study on one page that needs nothing but itself."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fmnist.plotting.frame import render, svg
from fmnist.tune.study_charts import Outcome, history_chart, importance_chart, measured, slice_chart

TOP = 10  # trials in the table
HISTORY_SIZE, IMPORTANCE_WIDTH, SLICE_SIZE = (5.6, 3.0), 4.8, (4.4, 2.8)  # inches


@dataclass(frozen=True)
class StudyFindings:
    """What the page of a study is made of, as plain values."""

    name: str
    metric: str
    better: str
    """'min' or 'max'."""
    outcomes: Sequence[Outcome]
    chosen: int | None
    """The number of the trial whose setting was chosen."""
    space: Sequence[str]
    """A line for each parameter."""
    logarithmic: Collection[str]
    """The parameters that are drawn from a logarithmic scale."""
    importance: Mapping[str, float]
    """Shares of 1; empty where there are too few trials to tell."""
    enough: int
    """Finished trials that it takes to tell."""
    facts: Mapping[str, str]
    headline: str = ""
    """The result."""
    meaning: str = ""
    """What it is."""
    experiment: str = ""
    """The chosen setting."""
    command: str = ""
    """What trains it."""
    retrained: Sequence[str] = ()
    """What came of that, in sentences."""


def study_page(findings: StudyFindings) -> str:
    """The page as HTML."""
    scale, unit = (1, findings.metric) if findings.better == "min" else (100, f"{findings.metric} (%)")
    outcomes = [replace(o, value=None if o.value is None else scale * o.value) for o in findings.outcomes]
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.parameters))
    slices = [
        svg(
            slice_chart(outcomes, name, findings.better, unit, log=name in findings.logarithmic, ring=findings.chosen),
            SLICE_SIZE,
        )
        for name in names
        if any(name in outcome.parameters for outcome, _ in measured(outcomes))
    ]
    importance = importance_chart(findings.importance) if findings.importance else None
    return render(
        "tune/study.html",
        study=findings,
        names=names,
        chosen=next((o for o in findings.outcomes if o.number == findings.chosen), None),
        counts=counts_text(outcomes),
        history=svg(history_chart(outcomes, findings.better, unit), HISTORY_SIZE) if measured(outcomes) else None,
        importance=svg(importance, (IMPORTANCE_WIDTH, importance.get_figheight())) if importance else None,
        slices=slices,
        rows=best_first(findings.outcomes, findings.better)[:TOP],
        failures=[outcome for outcome in outcomes if outcome.error],
        seconds=sum(outcome.seconds for outcome in outcomes),
        value_text=lambda value: value_text(value, findings.better),
        parameter_text=parameter_text,
    )


def best_first(outcomes: Sequence[Outcome], better: str) -> list[Outcome]:
    """The finished trials, the best at the top."""
    ordered = sorted(measured(outcomes, "finished"), key=lambda pair: pair[1], reverse=better == "max")
    return [outcome for outcome, _ in ordered]


def counts_text(outcomes: Sequence[Outcome]) -> str:
    """How many trials there are, and of each kind."""
    counts = Counter(outcome.state for outcome in outcomes)
    kinds = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{len(outcomes)} trial{'s' if len(outcomes) != 1 else ''}" + (f": {kinds}" if kinds else "")


def value_text(value: float | None, better: str) -> str:
    """A share as per cent, a loss as it is."""
    if value is None:
        return "-"
    return f"{value:.4f}" if better == "min" else f"{value:.2%}"


def parameter_text(value: Any) -> str:
    """A value of a parameter, short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
