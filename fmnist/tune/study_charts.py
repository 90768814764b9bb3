"""The trials of a study as charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fmnist.plotting.style import INK, SMALL_FONT_SIZE, TRAIN, VAL, WRONG, new_figure, styled

FINISHED: Any = {"color": TRAIN, "marker": "o", "s": 22, "linewidths": 0}
PRUNED: Any = {"color": WRONG, "marker": "x", "s": 22, "linewidths": 1.2}
RING: Any = {"facecolors": "none", "edgecolors": INK, "marker": "o", "s": 90, "linewidths": 1.5}
FEW = 5  # values, which are all drawn where they are
SPREAD = 4.0  # times the distance of the median from the better quarter: what lies further below is drawn on the edge


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    number: int
    state: Literal["finished", "pruned", "failed", "running", "cut off"]
    value: float | None
    """Of the chosen checkpoint; of a pruned trial that of its last epoch. None where there is none."""
    parameters: Mapping[str, Any]
    seconds: float
    """Of training."""
    epochs: int
    error: str = ""


def measured(outcomes: Sequence[Outcome], state: str | None = None) -> list[tuple[Outcome, float]]:
    """The trials, finished or pruned, that have a value."""
    states = (state,) if state else ("finished", "pruned")
    return [(o, o.value) for o in outcomes if o.state in states and o.value is not None and math.isfinite(o.value)]


@styled
def history_chart(outcomes: Sequence[Outcome], better: str, ylabel: str) -> Figure:
    """The value of each trial and the best so far, over the trials' numbers.

    Args:
        outcomes: all of the study.
        better: "min" or "max".
        ylabel: what the values are, with their unit.
    """
    figure = new_figure(6.5, 3.6)
    axes = figure.add_subplot()
    low, high = limits([value for _, value in measured(outcomes)], better)
    for state, look in (("finished", FINISHED), ("pruned", PRUNED)):
        points = [(outcome.number, value) for outcome, value in measured(outcomes, state)]
        _scatter(axes, points, low, high, look, label=state)
    failed = [o.number for o in outcomes if o.state == "failed"]
    if failed:
        axes.plot(failed, [0.02] * len(failed), "|", color=VAL, label="failed", transform=axes.get_xaxis_transform())
    best: float | None = None
    steps: list[tuple[int, float]] = []
    for outcome, value in measured(outcomes, "finished"):
        if best is None or (value > best if better == "max" else value < best):
            best = value
        steps.append((outcome.number, best))
    if steps:
        steps.append((max(outcome.number for outcome in outcomes), steps[-1][1]))
        axes.step(*zip(*steps, strict=True), where="post", color=INK, linewidth=1, label="best so far", zorder=1)
    _finish(axes, "trial", ylabel, low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)
    return figure


@styled
def importance_chart(importance: Mapping[str, float]) -> Figure:
    """A bar for each parameter.

    Args:
        importance: shares of 1, by the parameters' names.
    """
    figure = new_figure(6.5, 0.7 + 0.32 * len(importance))
    axes = figure.add_subplot()
    ordered = sorted(importance.items(), key=lambda item: item[1])
    bars = axes.barh([name for name, _ in ordered], [100 * share for _, share in ordered], color=TRAIN)
    axes.bar_label(bars, [f"{100 * share:.0f} %" for _, share in ordered], padding=3, fontsize=SMALL_FONT_SIZE)
    axes.set(xlabel="share of what the parameters explain (%)", xmargin=0.12)
    return figure


@styled
def slice_chart(
    outcomes: Sequence[Outcome], name: str, better: str, ylabel: str, *, log: bool, ring: int | None
) -> Figure:
    """The values over those of one parameter.

    Args:
        outcomes: all of the study.
        name: of the parameter.
        better: "min" or "max".
        ylabel: what the values are, with their unit.
        log: whether the parameter was drawn from a logarithmic scale.
        ring: the number of the trial around which there is one.
    """
    figure = new_figure(4.4, 2.8)
    axes = figure.add_subplot()
    low, high = limits([value for _, value in measured(outcomes)], better)
    numeric = all(_is_number(o.parameters[name]) for o, _ in measured(outcomes) if name in o.parameters)
    found = {str(o.parameters[name]) for o, _ in measured(outcomes) if name in o.parameters}
    places = {text: place for place, text in enumerate(sorted(found))}

    def x(outcome: Outcome) -> Any:
        return outcome.parameters[name] if numeric else places[str(outcome.parameters[name])]

    for state, look in (("pruned", PRUNED), ("finished", FINISHED)):
        points = [(x(outcome), value) for outcome, value in measured(outcomes, state) if name in outcome.parameters]
        _scatter(axes, points, low, high, look)
    for outcome, value in measured(outcomes, "finished"):
        if outcome.number == ring and name in outcome.parameters:
            axes.scatter(x(outcome), min(max(value, low), high), **RING)
    if log and numeric:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if not numeric:
        axes.set_xticks(list(places.values()), list(places), fontsize=SMALL_FONT_SIZE)
        axes.set_xlim(-0.5, len(places) - 0.5)
    _finish(axes, name, ylabel, low, high)
    return figure


def limits(values: Sequence[float], better: str) -> tuple[float, float]:
    """Between what the values are drawn, so that a few hopeless trials don't press all others together."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    if len(values) < FEW:
        return ordered[0], ordered[-1]
    quarter, middle, upper = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
    if better == "max":
        return max(ordered[0], middle - SPREAD * max(upper - middle, 1e-9)), ordered[-1]
    return ordered[0], min(ordered[-1], middle + SPREAD * max(middle - quarter, 1e-9))


def _scatter(
    axes: Axes, points: Sequence[tuple[Any, float]], low: float, high: float, look: Mapping[str, Any], label: str = ""
) -> None:
    """The points; those beyond an edge as arrows on it."""
    inside = [point for point in points if low <= point[1] <= high]
    if inside:
        axes.scatter(*zip(*inside, strict=True), label=label or None, zorder=2, **look)
    for edge, marker in ((low, "v"), (high, "^")):
        beyond = [x for x, value in points if (value < low if edge == low else value > high)]
        if beyond:
            own = {**look, "marker": marker, "linewidths": 0}
            axes.scatter(beyond, [edge] * len(beyond), label=None if inside else label or None, zorder=2, **own)


def _finish(axes: Axes, xlabel: str, ylabel: str, low: float, high: float) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    margin = 0.07 * (high - low) or 1e-3
    axes.set_ylim(low - margin, high + margin)
    axes.grid(visible=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
