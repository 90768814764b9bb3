"""Charts of a setting against a metric."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from fmnist.compare.reading import natural
from fmnist.plotting.style import TRAIN, WRONG, new_figure, styled

MAX_POINTS = 300  # drawn as shapes; more become one bitmap, as thousands make a page slow
MAX_VALUES = 12  # with a mean each
LOG_SPAN = 30  # ratio of the largest to the smallest value from which the axis is logarithmic
MAX_NUMBER = 1e100
LONGEST_LABEL = 18  # characters
NOT_SET = "not set"


@styled
def setting_chart(key: str, values: Sequence[str | float], scores: Sequence[float], ylabel: str) -> Figure:
    """Draw each of N runs as a point over its value of a setting; for few values, also mean and standard deviation.

    Args:
        key: the setting.
        values: of each run, as text; NaN where it isn't set (N).
        scores: of each run, finite (N).
        ylabel: name of the scores.
    """
    runs = DataFrame({"value": Series(values, dtype=object), "score": scores})
    numbers = pd.to_numeric(runs["value"].dropna(), errors="coerce")
    numeric = (numbers.abs() < MAX_NUMBER).all() and numbers.nunique() > 1
    figure = new_figure(4.6, 2.8)
    axes = figure.add_subplot()
    title = key
    if numeric:
        runs["place"] = numbers
        if 0 < LOG_SPAN * numbers.min() < numbers.max():
            axes.set_xscale("log")
    else:
        categories = runs["value"].fillna(NOT_SET)
        frequent = categories.value_counts().index[:MAX_VALUES]
        labels = sorted(frequent, key=lambda value: (value == NOT_SET, natural(value)))
        runs["place"] = categories.map({label: place for place, label in enumerate(labels)})
        texts = [text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…" for text in labels]
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_xticks(range(len(labels)), texts, parse_math=False)
        if max(map(len, texts)) * len(texts) > 44:  # they would overlap
            for label in axes.get_xticklabels():
                label.set(rotation=30, ha="right", rotation_mode="anchor")
        if rare := categories.nunique() - len(labels):
            title += f" ({rare:,} rarer values left out)"
    runs = runs.dropna(subset="place")
    spread = 0.0 if numeric else 0.2
    places = runs["place"] + np.random.default_rng(0).uniform(-spread, spread, len(runs))
    many = len(runs) > MAX_POINTS
    size, alpha = (6, 0.3) if many else (14, 0.8)
    axes.scatter(places, runs["score"], s=size, color=TRAIN, alpha=alpha, lw=0, rasterized=many)
    means = runs.groupby("place")["score"].agg(["mean", "std"]).fillna(0)
    if len(means) <= MAX_VALUES:
        axes.errorbar(means.index, means["mean"], means["std"], fmt="D", color=WRONG, markersize=4.5, capsize=4)
    axes.set_title(title, parse_math=False)
    axes.set(ylabel=ylabel)
    axes.grid(visible=True, axis="y")
    return figure
