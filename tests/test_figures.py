"""Charts and tiles, by what stands in them."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fmnist.data.info import FASHION_MNIST
from fmnist.plotting import charts, style, tiles

CLASSES = FASHION_MNIST.classes
CURVES = {"train": [(1, 0.5), (2, 0.4)], "val": [(0, 0.7), (1, 0.6)]}


def every_figure() -> dict[str, Figure]:
    bins = torch.linspace(0.05, 0.95, 10)
    return {
        "confusion": charts.confusion_chart(torch.ones(10, 10).long(), CLASSES),
        "curves": charts.curves_chart(CURVES, "loss", "nats"),
        "reliability": charts.reliability_chart(bins, bins**2, torch.arange(10), 0.05),
        "class counts": charts.class_counts_chart({"train": torch.arange(10)}, CLASSES),
        "tiles": tiles.tiles(torch.rand(3, 28, 28), ["a", "b", "c"]),
        "pixels": tiles.pixel_values(torch.zeros(4, 4, dtype=torch.uint8), "an image"),
    }


def shown(figure: Figure) -> np.ndarray:
    """The colours (H, W, 3) of the picture that holds all tiles."""
    return np.asarray(figure.axes[0].images[0].get_array())


def corners(figure: Figure) -> list[tuple[int, int]]:
    """The upper left pixel of each tile, which is the place below the middle of its title."""
    places = (text.get_position() for text in figure.axes[0].texts[1:])
    return [(round(y) + 3, round(x) - tiles.TILE // 2) for x, y in places]


def assert_no_overlap(figure: Figure) -> None:
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text()]
    for index, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1 - figure.bbox.x1, box.y1 - figure.bbox.y1) <= 0
        assert box.count_overlaps(boxes[index + 1 :]) == 0, index


def test_confusion_chart_has_rows_of_true_and_columns_of_predicted_classes() -> None:
    counts = torch.arange(100).view(10, 10)
    axes = charts.confusion_chart(counts, CLASSES).axes[0]
    written = {(int(y), int(x)): int(text.get_text()) for text in axes.texts for x, y in [text.get_position()]}
    assert written == {(row, column): 10 * row + column for row in range(10) for column in range(10)}
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == list(CLASSES)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    assert_no_overlap(charts.confusion_chart(torch.full((10, 10), 6_000), CLASSES))


def test_curves_chart_has_a_line_for_each_name_without_what_is_missing() -> None:
    nan = float("nan")
    curves = {"train": [(1, 0.5), (2, nan), (3, 0.3)], "val": [(0, 0.9)], "test": [(1, nan)], "best": [(3, 0.2)]}
    axes = charts.curves_chart(curves, "loss by epoch", "loss (nats)").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert {name: line.get_xydata().tolist() for name, line in lines.items()} == {
        "train": [[1, 0.5], [3, 0.3]],
        "val": [[0, 0.9]],
        "best": [[3, 0.2]],
    }
    for look in ("color", "linestyle", "marker"):
        assert len({getattr(line, f"get_{look}")() for line in lines.values()}) == 3


def test_reliability_chart_shows_the_bins_that_have_images() -> None:
    confidence, accuracy = torch.tensor([torch.nan, 0.4, 0.9]), torch.tensor([torch.nan, 0.3, 0.95])
    upper, lower = charts.reliability_chart(confidence, accuracy, torch.tensor([0, 2, 8]), 0.06).axes
    points = next(line for line in upper.lines if line.get_label() == "accuracy of a bin")
    assert points.get_xydata().flatten().tolist() == pytest.approx([40, 30, 90, 95])
    assert [segment[1, 1] for segment in lower.collections[0].get_segments()] == [2, 8]


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_show_each_image_below_its_title(channels: int) -> None:
    images = torch.randint(256, (5, channels, 28, 28)).to(torch.uint8)
    figure = tiles.tiles(images, list("abcde"), columns=3, suptitle="five")
    assert [text.get_text() for text in figure.axes[0].texts] == ["five", *"abcde"]
    places = corners(figure)
    assert len({y for y, _ in places}) == 2
    assert len({x for _, x in places}) == 3
    for image, (y, x) in zip(images, places, strict=True):
        tile = shown(figure)[y : y + 112 : 4, x : x + 112 : 4]
        assert np.allclose(tile[..., :3], image.expand(3, -1, -1).permute(1, 2, 0) / 255)
    opaque = shown(figure)[..., 3]  # a page's own ground, light or dark, is behind the titles
    assert set(np.unique(opaque)) == {0, 1}
    assert opaque.sum() == 5 * 112 * 112


def test_tiles_have_one_range_for_all_images_without_nan() -> None:
    for images, expected in (
        (torch.tensor([[[-1.0, 0.0]], [[1.0, 3.0]]]), [0, 0.25, 0.5, 1]),
        (torch.tensor([[[0, 51]], [[51, 102]]], dtype=torch.uint8), [0, 0.2, 0.2, 0.4]),
        (torch.tensor([[[0.0, 4.0]], [[float("nan"), 2.0]]]), [0, 1, 1, 0.5]),
    ):
        figure = tiles.tiles(images, ["", ""])
        values = [shown(figure)[y, x + side, 0] for y, x in corners(figure) for side in (0, 56)]
        assert values == pytest.approx(expected)


def test_prediction_tiles_are_titled_predicted_and_true() -> None:
    predicted, labels = torch.tensor([6, 8, 9]), torch.tensor([0, 8, 7])
    texts = tiles.prediction_tiles(torch.rand(3, 28, 28), predicted, labels, CLASSES).axes[0].texts[1:]
    titles = ["✗ Shirt\n(T-shirt/top)", "✓ Bag\n(Bag)", "✗ Ankle boot\n(Sneaker)"]
    assert [text.get_text() for text in texts] == titles
    assert [text.get_color() for text in texts] == [style.WRONG, style.RIGHT, style.WRONG]
    images = torch.rand(16, 28, 28)
    assert_no_overlap(tiles.tiles(images, ["T-shirt/top (Ankle boot)"] * 16, suptitle="one line " * 5))
    assert_no_overlap(tiles.prediction_tiles(images, torch.zeros(16).long(), torch.full((16,), 9), CLASSES))


def test_map_grid_is_blue_below_zero_and_red_above_it_by_the_scale_of_each_map() -> None:
    maps = torch.zeros(3, 14, 14)
    maps[0, :, :7], maps[0, :, 7:], maps[1] = 1, -2, 0.001
    grid = tiles.map_grid(maps, columns=2)
    assert grid.shape == (3, 2 * 58 + 2, 2 * 58 + 2)
    halfway, blue, red, white = (grid[:, y, x].tolist() for y, x in ((5, 5), (5, 50), (5, 80), (80, 5)))
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]
    assert min(white) > 240
    assert halfway[0] > halfway[2] > red[2]
    assert tiles.map_grid(torch.rand(tiles.MOST_MAPS + 9, 7, 7)).shape == (3, 8 * 58 + 2, 8 * 58 + 2)
    assert tiles.map_grid(torch.full((2, 3, 3), float("nan"))).dtype == torch.uint8  # of a network that diverged


def test_pixel_values_are_written_where_they_are() -> None:
    image = torch.arange(0, 256, 4).view(8, 8).to(torch.uint8)
    figure = tiles.pixel_values(image, "an image")
    (axes,) = figure.axes
    written = {text.get_position()[::-1]: (text.get_text(), text.get_color()) for text in axes.texts}
    for (row, column), value in np.ndenumerate(image.numpy()):
        assert written[row, column] == (str(value), "white" if value < 128 else "black")
    assert np.array_equal(axes.images[0].get_array(), image)
    assert_no_overlap(tiles.pixel_values(torch.full((28, 28), 200, dtype=torch.uint8), "an image"))


def test_svg_is_one_element_that_loads_nothing_and_has_the_text_colour_of_its_page() -> None:
    settings = dict(matplotlib.rcParams)
    svgs = {name: style.to_svg(figure) for name, figure in every_figure().items()}
    assert dict(matplotlib.rcParams) == settings
    for name, svg in svgs.items():
        assert (svg[:5], svg[-6:]) == ("<svg ", "</svg>"), name
        assert not re.findall(r"<\?|<!|<metadata|<script|@import", svg), name
        assert all(target.startswith(("#", "data:image/png")) for target in re.findall(r'href="([^"]*)"', svg)), name
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= set(re.findall(r' id="([^"]+)"', svg)), name
        ElementTree.fromstring(svg)
    for name in ("curves", "reliability", "class counts", "tiles"):
        texts = re.findall(r"<text ([^>]*)>", svgs[name])
        assert texts, name
        assert all("fill: currentColor" in attributes for attributes in texts), name
    colours = set(re.findall(r"(?:fill|stroke): ([^\";]+)", svgs["curves"]))
    assert colours == {"currentColor", "none", style.TRAIN.lower(), style.VAL.lower()}
    assert style.to_svg(every_figure()["curves"]) == svgs["curves"]
