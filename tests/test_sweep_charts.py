"""The charts of a comparison by what stands in them."""

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from fmnist.compare.sweep_charts import (
    MOST_CATEGORIES,
    MOST_POINTS,
    label,
    parallel_chart,
    scale_of,
    setting_chart,
)
from fmnist.plotting.style import to_svg


def drawn(values: list[Any], scores: list[float]) -> Figure:
    return setting_chart("some.key", values, scores, "accuracy", str)


def points_of(figure: Figure) -> np.ndarray[Any, Any]:
    (axes,) = figure.axes
    (points,) = (each for each in axes.collections if isinstance(each, PathCollection))
    return np.asarray(points.get_offsets())


def tick_texts(figure: Figure) -> list[str]:
    return [tick.get_text() for tick in figure.axes[0].get_xticklabels()]


def test_numbers_lie_at_their_own_places() -> None:
    figure = drawn([1, 2, 4, 4], [0.5, 0.6, 0.7, 0.9])
    (axes,) = figure.axes
    assert points_of(figure).tolist() == [[1, 0.5], [2, 0.6], [4, 0.7], [4, 0.9]]
    assert (axes.get_title(loc="left"), axes.get_ylabel(), axes.get_xscale()) == ("some.key", "accuracy", "linear")
    assert tick_texts(figure) == ["1", "2", "4"]
    (means,) = (container for container in axes.containers if hasattr(container, "has_yerr"))
    assert means[0].get_xydata() == pytest.approx(np.array([[1, 0.5], [2, 0.6], [4, 0.8]]))
    upper = means[1][1].get_ydata()
    assert upper == pytest.approx([0.5, 0.6, 0.8 + math.sqrt(0.02)])


@pytest.mark.parametrize(
    ("values", "scale"), [([0.001, 0.1], "log"), ([1, 30], "linear"), ([0, 100], "linear"), ([-1, 1e6], "linear")]
)
def test_an_axis_is_logarithmic_where_positive_values_span_more_than_30(values: list[float], scale: str) -> None:
    assert drawn(values, [0.1, 0.2]).axes[0].get_xscale() == scale


def test_of_many_numbers_no_mean_is_drawn() -> None:
    figure = drawn(list(range(50)), [i / 50 for i in range(50)])
    assert len(points_of(figure)) == 50
    assert not figure.axes[0].containers


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([True, False, True], ["False", "True"]),
        ([(16, 32), (8,), (128,)], ["(8,)", "(16, 32)", "(128,)"]),
        ([1, "x", None], ["1", "x", "None"]),
        ([3, 3, None], ["3", "None"]),
    ],
)
def test_other_values_are_strips_in_an_order_of_their_own(values: list[Any], labels: list[str]) -> None:
    figure = drawn(values, [0.1, 0.2, 0.3])
    assert tick_texts(figure) == labels
    places = points_of(figure)
    assert sorted(places[:, 1]) == [0.1, 0.2, 0.3]
    for x, y in places:
        assert labels[round(x)] == str(values[[0.1, 0.2, 0.3].index(y)])


def test_a_number_that_is_not_set_everywhere_is_left_out_where_it_is_not() -> None:
    figure = drawn([0.5, 0.9, None], [0.1, 0.2, 0.3])
    assert points_of(figure).tolist() == [[0.5, 0.1], [0.9, 0.2]]


def test_rare_categories_and_lost_runs_are_left_out() -> None:
    values = [f"v{i}" for i in range(MOST_CATEGORIES + 3)] + ["v0", "v1"]
    figure = drawn(values, [*[0.5] * (MOST_CATEGORIES + 3), 0.6, math.nan])
    assert len(tick_texts(figure)) == MOST_CATEGORIES
    assert "3 rarer values left out" in figure.axes[0].get_title(loc="left")
    assert len(points_of(figure)) == MOST_CATEGORIES + 1


@pytest.mark.parametrize(("count", "picture"), [(MOST_POINTS, False), (MOST_POINTS + 1, True)])
def test_many_points_become_one_picture(count: int, picture: bool) -> None:
    svg = to_svg(drawn(["a", "b"] * (count // 2) + ["a"] * (count % 2), [0.5] * count))
    assert ("data:image/png;base64," in svg) == picture
    assert len(svg) < 200_000


def test_texts_are_no_formulas_and_any_letters_will_do() -> None:
    svg = to_svg(setting_chart("a$b$", [r"$\frac{$", "<script>", "服装"], [0.1, 0.2, 0.3], "%", str))
    for text in ("a$b$", r"$\frac{$", "&lt;script&gt;", "服装"):
        assert f">{text}<" in svg
    assert label("x" * 50) == "x" * 17 + "…"


def test_an_infinite_value_is_a_word_among_others() -> None:
    assert not scale_of([0.1, math.inf], str).numeric
    assert not scale_of([0.1, 10**400], str).numeric


def test_parallel_lines_go_from_value_to_score() -> None:
    settings = {"lr": [1.0, 0.01, None], "opt.kind": ["b", "a", "b"]}
    figure = parallel_chart(settings, [0.9, 0.8, 0.5], "accuracy", str)
    (axes,) = figure.axes
    (lines,) = (each for each in axes.collections if isinstance(each, LineCollection))
    heights = [np.asarray(line)[:, 1].tolist() for line in lines.get_segments()]
    assert heights == [[-0.08, 1, 0], [0, 0, pytest.approx(0.75)], [1, 1, 1]]  # the best comes last, and lies on top
    assert np.asarray(lines.get_array()).tolist() == [0.5, 0.8, 0.9]
    assert tick_texts(figure) == ["lr", "opt.\nkind", "accuracy"]
    texts = {text.get_text() for text in axes.texts}
    assert {"0.01", "1.0", "None", "a", "b", "0.50", "0.90"} <= texts


def test_parallel_lines_of_equal_scores() -> None:
    svg = to_svg(parallel_chart({"k": ["a", "b"]}, [0.5, 0.5], "accuracy", str))
    assert ">0.5<" in svg
