"""What settings do to a metric, as charts: plain values in, figures out."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fmnist.plotting.style import INK, SMALL_FONT_SIZE, TRAIN, WRONG, new_figure, styled

MOST_LINES = 300
MOST_POINTS = 300  # as shapes of their own; more become one picture
MOST_CATEGORIES = 12
LOG_SPAN = 30  # of the largest to the smallest value, from where on an axis is logarithmic
LARGEST = 1e100  # number on an axis
LONGEST = 18  # characters of a label
COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0.15, 0.8, 256)))
"""The part of it that can be seen on white and on black."""

Text = Callable[[Any], str]


@dataclass(frozen=True)
class Scale:
    """Where the values of a setting lie on an axis."""

    places: Mapping[Any, float]
    """Of each value that is drawn."""
    labels: Mapping[float, str]
    """At their places."""
    numeric: bool
    logarithmic: bool = False
    left_out: int = 0
    """Rarer values, for which there is no room."""


def scale_of(values: Sequence[Any], text: Text) -> Scale:
    """A number's own place where all are numbers; else one place after the other, for the most frequent ones.

    Args:
        values: None where the setting isn't there.
        text: what stands at a value.
    """
    given = [value for value in values if value is not None]
    distinct = list(dict.fromkeys(given))
    if len(distinct) > 1 and all(map(_is_number, distinct)):
        ordered = sorted(distinct)
        logarithmic = ordered[0] > 0 and ordered[-1] > LOG_SPAN * ordered[0]
        labels = {float(value): label(text(value)) for value in ordered}
        return Scale({value: float(value) for value in ordered}, labels, numeric=True, logarithmic=logarithmic)
    frequent = [value for value, _ in Counter(values).most_common(MOST_CATEGORIES)]
    shown = sorted(frequent, key=lambda value: (value is None, _order(text(value))))
    places = {value: float(place) for place, value in enumerate(shown)}
    labels = {place: label(text(value)) for value, place in places.items()}
    return Scale(places, labels, numeric=False, left_out=len(set(values)) - len(shown))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _order(text: str) -> list[str | float]:
    """Numbers by their size, also in a list."""
    return [float(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+\.?\d*)", text))]


def label(text: str) -> str:
    """A text that fits, and that matplotlib doesn't take for a formula."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return short.replace("$", r"\$")


@styled
def setting_chart(key: str, values: Sequence[Any], scores: Sequence[float], ylabel: str, text: Text) -> Figure:
    """Every run as a point over its value of one setting, with mean and standard deviation of each value.

    Args:
        key: the setting.
        values: of the N runs; None where it isn't set.
        scores: of the N runs; those that aren't finite are left out.
        ylabel: what they are.
        text: what stands at a value.
    """
    pairs = [(value, score) for value, score in zip(values, scores, strict=True) if math.isfinite(score)]
    scale = scale_of([value for value, _ in pairs], text)
    groups: dict[Any, list[float]] = {value: [] for value in scale.places}
    for value, score in pairs:
        if value in groups:
            groups[value].append(score)
    figure = new_figure(4.6, 2.8)
    axes = figure.add_subplot()
    places = np.array([scale.places[value] for value in groups for _ in groups[value]])
    points = np.array([score for group in groups.values() for score in group])
    shift = 0.0 if scale.numeric else 0.2
    spread = np.random.default_rng(0).uniform(-shift, shift, len(places))
    many = len(points) > MOST_POINTS
    axes.scatter(
        places + spread, points, s=6 if many else 14, color=TRAIN, alpha=0.3 if many else 0.8, lw=0, rasterized=many
    )
    at = list(scale.places.values())
    few = not scale.numeric or len(at) <= MOST_CATEGORIES
    if few:
        means = [float(np.mean(group)) for group in groups.values()]
        spreads = [float(np.std(group, ddof=1)) if len(group) > 1 else 0.0 for group in groups.values()]
        axes.errorbar(at, means, spreads, color=WRONG, fmt="D", markersize=4.5, capsize=4, linewidth=1.2)
    _set_x(axes, scale, few)
    more = f" ({scale.left_out:,} rarer values left out)" if scale.left_out else ""
    axes.set_title(label_whole(key) + more)
    axes.set(ylabel=ylabel)
    axes.grid(visible=True, axis="y")
    return figure


def label_whole(text: str) -> str:
    """A text that matplotlib doesn't take for a formula."""
    return text.replace("$", r"\$")


def _set_x(axes: Axes, scale: Scale, few: bool) -> None:
    if scale.logarithmic:
        axes.set_xscale("log")
    if not few:
        return
    places = list(scale.labels)
    if scale.numeric:
        kept = _apart(places, scale.logarithmic, 0.09)
    else:
        kept = places
        axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_xticks(kept, [scale.labels[place] for place in kept])
    axes.xaxis.set_minor_locator(NullLocator())
    if max(len(scale.labels[place]) for place in kept) * len(kept) > 44:
        axes.tick_params(axis="x", rotation=30)
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")


def _apart(places: Sequence[float], logarithmic: bool, least: float) -> list[float]:
    """Of increasing places those that leave room between them, the first and the last among them.

    Args:
        places: increasing.
        logarithmic: how they are drawn.
        least: distance, as a share of the axis.
    """
    at = _unit(places, logarithmic)
    kept = [0]
    for index in range(1, len(places)):
        is_last = index == len(places) - 1
        if at[index] - at[kept[-1]] >= least and (is_last or at[-1] - at[index] >= least):
            kept.append(index)
    if len(places) > 1 and kept[-1] != len(places) - 1:
        kept.append(len(places) - 1)
    return [places[index] for index in kept]


def _unit(places: Sequence[float], logarithmic: bool) -> list[float]:
    """The places from 0 to 1."""
    moved = [math.log(place) for place in places] if logarithmic else list(places)
    low, high = min(moved), max(moved)
    return [(place - low) / (high - low) if high > low else 0.5 for place in moved]


@styled
def parallel_chart(settings: Mapping[str, Sequence[Any]], scores: Sequence[float], ylabel: str, text: Text) -> Figure:
    """A line for each of N settings through an axis for each key, to its score on the last axis, which colours it.

    Args:
        settings: the N values of each key; None where it isn't set.
        scores: N of them, finite, best first; the best is drawn on top.
        ylabel: what they are.
        text: what stands at a value.
    """
    figure = new_figure(1.35 * (len(settings) + 1) + 0.6, 4.6)
    axes = figure.add_subplot()
    columns, headings = [], []
    for place, (key, values) in enumerate(settings.items()):
        scale = scale_of(values, text)
        place_of = dict(zip(scale.places, _unit(list(scale.places.values()), scale.logarithmic), strict=True))
        # A number that isn't set lies below the axis, a value that is too rare above it.
        columns.append([place_of.get(value, -0.08 if value is None else 1.08) for value in values])
        ticks = dict(zip(scale.labels, _unit(list(scale.labels), scale.logarithmic), strict=True))
        labels = [(ticks[at], scale.labels[at]) for at in _apart(list(scale.labels), scale.logarithmic, 0.1)]
        labels += [(-0.08, text(None))] if scale.numeric and None in values else []
        labels += [(1.08, "others")] if scale.left_out else []
        _axis(axes, place, labels)
        headings.append(label_whole(key).replace(".", ".\n"))
    heights, labels = _score_axis(scores)
    _axis(axes, len(settings), labels)
    columns.append(heights)
    lines = LineCollection(
        [list(enumerate(line)) for line in reversed(list(zip(*columns, strict=True)))],
        array=np.array(scores[::-1]),
        cmap=COLOURS,
        norm=Normalize(min(scores), max(scores)),
        linewidths=1.0 if len(scores) > 50 else 1.6,
        alpha=0.75,
        capstyle="round",
    )
    axes.add_collection(lines)
    drawn = [height for column in columns for height in column]
    axes.set(xlim=(-0.15, len(settings) + 0.55), ylim=(min(drawn) - 0.04, max(drawn) + 0.04))
    axes.set_xticks(range(len(settings) + 1), [*headings, ylabel])
    axes.tick_params(axis="x", length=0, top=True, labeltop=True, labelbottom=False)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def _score_axis(scores: Sequence[float]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights, and the labels of the axis."""
    low, high = min(scores), max(scores)
    heights = _unit(scores, False)
    if high == low:
        return heights, [(0.5, f"{low:.4g}")]
    digits = max(0, 1 - math.floor(math.log10(high - low)))
    return heights, [(share, f"{low + share * (high - low):.{digits}f}") for share in (0, 0.25, 0.5, 0.75, 1)]


def _axis(axes: Axes, place: float, labels: Sequence[tuple[float, str]]) -> None:
    axes.plot([place, place], [0, 1], color=INK, linewidth=0.8)
    for height, text in labels:
        axes.annotate(
            text,
            (place, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL_FONT_SIZE,
        )
