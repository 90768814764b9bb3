"""The charts of a comparison, by what is drawn in them."""

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from fmnist.compare.charts import MAX_POINTS, MAX_VALUES, setting_chart
from fmnist.plotting.style import to_svg


def drawn(values: list[Any], scores: list[float]) -> Figure:
    return setting_chart("some.key", values, scores, "accuracy")


def points_of(figure: Figure) -> list[list[float]]:
    (axes,) = figure.axes
    (points,) = (each for each in axes.collections if isinstance(each, PathCollection))
    return np.asarray(points.get_offsets()).tolist()


def test_numbers_are_drawn_at_their_place_with_the_mean_of_each() -> None:
    figure = drawn(["1", "2", "4", "4.0", math.nan], [0.5, 0.6, 0.7, 0.9, 0.1])
    (axes,) = figure.axes
    assert points_of(figure) == [[1, 0.5], [2, 0.6], [4, 0.7], [4, 0.9]]
    assert (axes.get_title(loc="left"), axes.get_ylabel(), axes.get_xscale()) == ("some.key", "accuracy", "linear")
    (means,) = (container for container in axes.containers if hasattr(container, "has_yerr"))
    assert means[0].get_xydata() == pytest.approx(np.array([[1, 0.5], [2, 0.6], [4, 0.8]]))
    assert means[1][1].get_ydata() == pytest.approx([0.5, 0.6, 0.8 + math.sqrt(0.02)])
    assert not drawn([str(i) for i in range(50)], [i / 50 for i in range(50)]).axes[0].containers  # no means


@pytest.mark.parametrize(
    ("values", "scale"), [("0.001 0.1", "log"), ("1 30", "linear"), ("0 100", "linear"), ("-1 1e6", "linear")]
)
def test_an_axis_is_logarithmic_if_positive_values_span_more_than_30(values: str, scale: str) -> None:
    assert drawn(values.split(), [0.1, 0.2]).axes[0].get_xscale() == scale


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "b"], ["a", "b"]),
        (["[16, 32]", "[8]", "[128]"], ["[8]", "[16, 32]", "[128]"]),
        (["1", "x", math.nan], ["1", "x", "not set"]),
        (["3", "3", math.nan], ["3", "not set"]),
        (["Infinity", "1", "2"], ["1", "2", "Infinity"]),
        (["1" + "0" * 400, "1", "2"], ["1", "2", "1" + "0" * 16 + "…"]),
    ],
)
def test_other_values_are_categories_in_natural_order(values: list[Any], labels: list[str]) -> None:
    figure = drawn(values, [0.1, 0.2, 0.3])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == labels
    for x, score in points_of(figure):
        value = values[[0.1, 0.2, 0.3].index(score)]
        assert labels[round(x)][:17] == ("not set" if value is math.nan else value[:17])


def test_rare_categories_are_left_out() -> None:
    figure = drawn([f"v{i}" for i in range(MAX_VALUES + 3)] + ["v0", "v1"], [0.5] * (MAX_VALUES + 5))
    assert len(points_of(figure)) == MAX_VALUES + 2
    assert "3 rarer values left out" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize(("count", "bitmap"), [(MAX_POINTS, False), (MAX_POINTS + 1, True)])
def test_many_points_become_one_bitmap(count: int, bitmap: bool) -> None:
    svg = to_svg(drawn(["a", "b"] * (count // 2) + ["a"] * (count % 2), [0.5] * count))
    assert ("data:image/png;base64," in svg) == bitmap
    assert len(svg) < 200_000


def test_texts_are_no_formulas_and_may_have_any_letters() -> None:
    svg = to_svg(setting_chart("a$b$", [r"$\frac{$", "<script>", "服装"], [0.1, 0.2, 0.3], "%"))
    for text in ("a$b$", r"$\frac{$", "&lt;script&gt;", "服装"):
        assert f">{text}<" in svg
