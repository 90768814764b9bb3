"""The pictures by what stands in them."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fmnist.data.info import CLASSES
from fmnist.plotting import charts, style, tiles


def confusion(seed: int = 0) -> Tensor:
    counts = torch.randint(0, 40, (10, 10), generator=torch.Generator().manual_seed(seed))
    return counts.where(counts > 15, 0) + 1200 * torch.eye(10, dtype=torch.long)


def every_chart() -> dict[str, Figure]:
    bins = torch.linspace(0.05, 0.95, 10)
    return {
        "confusion": charts.confusion_chart(confusion()),
        "curves": charts.curves_chart({"train": [(1, 0.5), (2, 0.4)], "val": [(0, 0.7), (1, 0.6)]}, "loss", "nats"),
        "reliability": charts.reliability_chart(bins, bins**2, torch.arange(10), 0.05),
        "class counts": charts.class_counts_chart({"train": torch.arange(10), "test": torch.arange(10)}),
        "tiles": tiles.tiles(torch.rand(3, 28, 28), ["a", "b", "c"]),
        "filters": tiles.map_tiles(torch.randn(4, 5, 5), "filters"),
        "pixels": tiles.pixel_values(torch.zeros(4, 4, dtype=torch.uint8), "an image"),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return every_chart()


@pytest.fixture(scope="module")
def svgs(drawn: dict[str, Figure]) -> dict[str, str]:
    return {name: style.to_svg(figure) for name, figure in drawn.items()}


def shown(figure: Figure) -> np.ndarray:
    """The values of the composite image, NaN where nothing is."""
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def only_tiles(canvas: np.ndarray) -> np.ndarray:
    """The composite image without what lies between and beside its images."""
    there = ~np.isnan(canvas)
    return canvas[there.any(axis=1)][:, there.any(axis=0)]


def assert_no_overlap(figure: Figure) -> None:
    style.to_array(figure)  # arranges it
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    boxes += [text.get_window_extent() for text in figure.texts]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :]), index


def luminance(colour: str) -> float:
    """Relative luminance. Source: https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    channels = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [style.RIGHT, style.WRONG, style.TRAIN, style.VAL])
def test_colours_stand_out_on_a_light_and_on_a_dark_page(colour: str) -> None:
    assert contrast(colour, "#ffffff") > 3
    assert contrast(colour, "#121212") > 3


def test_the_confusion_chart_has_each_count_in_its_cell() -> None:
    counts = confusion()
    axes = charts.confusion_chart(counts).axes[0]
    written = {(int(y), int(x)): text.get_text() for text in axes.texts for x, y in [text.get_position()]}
    expected = {(row, column): f"{counts[row, column]:,}" for row, column in counts.nonzero().tolist()}
    assert written == expected
    assert "1,200" in written.values()
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == list(CLASSES)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert axes.yaxis_inverted()


def test_the_confusion_chart_colours_by_the_share_of_the_true_class_and_its_text_can_be_read() -> None:
    counts = torch.zeros(10, 10, dtype=torch.long)
    counts[0, 0], counts[1, 1], counts[1, 2], counts[2, 0] = 5, 300, 100, 7000  # and classes without images
    figure = charts.confusion_chart(counts)
    style.to_array(figure)
    (mesh,) = figure.axes[0].collections
    shares = mesh.get_array().reshape(10, 10)
    assert (shares[0, 0], shares[1, 1], shares[1, 2], shares[2, 0]) == (1, 0.75, 0.25, 1)
    assert shares.sum() == 3
    cells = mesh.get_facecolors().reshape(10, 10, 4)
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        assert contrast(text.get_color(), to_hex(cells[int(y), int(x)])) > 4.5


def test_a_curves_chart_has_a_line_for_each_name_without_what_is_missing() -> None:
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
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "val", "best"]
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == (
        "loss by epoch",
        "epoch",
        "loss (nats)",
    )
    assert not charts.curves_chart({}, "nothing yet", "loss").axes[0].lines


def test_a_reliability_chart_shows_the_bins_that_have_images() -> None:
    confidence = torch.tensor([float("nan"), 0.4, 0.9])
    figure = charts.reliability_chart(
        confidence, torch.tensor([float("nan"), 0.3, 0.95]), torch.tensor([0, 2, 8]), 0.06
    )
    upper, lower = figure.axes
    assert upper.get_title(loc="left") == "expected calibration error 6.00 %"
    points = next(line for line in upper.lines if line.get_label() == "accuracy of a bin")
    assert points.get_xydata().flatten().tolist() == pytest.approx([40, 30, 90, 95])
    gaps = [segment[:, 1].tolist() for segment in upper.collections[0].get_segments()]
    assert gaps == [pytest.approx([40, 30]), pytest.approx([90, 95])]
    assert [segment[1, 1] for segment in lower.collections[0].get_segments()] == [2, 8]


def test_a_class_counts_chart_writes_the_number_of_each_class_in_each_split() -> None:
    counts = {"train": torch.arange(1000, 1010), "val": torch.zeros(10, dtype=torch.long)}
    panels = charts.class_counts_chart(counts).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["train: 10,045 images", "val: 0 images"]
    assert [text.get_text() for text in panels[0].texts] == [f"{number:,}" for number in range(1000, 1010)]
    assert [text.get_text() for text in panels[1].texts] == ["0"] * 10
    assert [bar.get_width() for bar in panels[0].patches] == list(range(1000, 1010))
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(CLASSES)
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_tiles_show_each_image_in_its_place_and_leave_the_rest_blank() -> None:
    images = torch.arange(5 * 28 * 28, dtype=torch.uint8).view(5, 28, 28)
    figure = tiles.tiles(images, columns=3, suptitle="five")
    values = only_tiles(shown(figure))
    assert values.shape == (2 * 28 * 4, 3 * 28 * 4)
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        tile = values[row * 112 :, column * 112 :][:112:4, :112:4]
        assert np.allclose(tile, image / 255)
    assert np.isnan(values[112:, 224:]).all()
    assert [text.get_text() for text in figure.texts] == ["five"]
    assert len(figure.axes) == 1


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.tensor([[[-1.0, 0.0]], [[1.0, 3.0]], [[2.0, 2.0]]]), [0, 0.25, 0.5, 1, 0.75, 0.75]),
        (torch.tensor([[[0, 51]], [[51, 102]], [[0, 0]]], dtype=torch.uint8), [0, 0.2, 0.2, 0.4, 0, 0]),
    ],
    ids=["numbers", "bytes"],
)
def test_tiles_have_one_range_for_all_images(images: torch.Tensor, expected: list[float]) -> None:
    values = only_tiles(shown(tiles.tiles(images)))
    assert values[0, :: values.shape[1] // 6].tolist() == expected


def test_tiles_take_one_image_or_none_and_values_that_are_no_numbers() -> None:
    assert only_tiles(shown(tiles.tiles(torch.eye(28)[None], ["one"]))).shape == (112, 112)
    assert np.isnan(shown(tiles.tiles(torch.zeros(0, 28, 28)))).all()
    assert np.isnan(shown(tiles.prediction_tiles(torch.zeros(0, 28, 28), torch.zeros(0), torch.zeros(0)))).all()
    broken = torch.tensor([[[0.0, 4.0]], [[float("nan"), 1.0]]])
    figure = tiles.tiles(broken)
    assert np.nanmax(shown(figure)) == 1
    style.to_array(figure)
    style.to_array(tiles.map_tiles(torch.full((2, 3, 3), float("nan")), "diverged"))


def test_prediction_tiles_say_what_an_image_was_taken_for_and_what_it_is() -> None:
    figure = tiles.prediction_tiles(torch.rand(3, 28, 28), torch.tensor([6, 8, 9]), torch.tensor([0, 8, 7]))
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == [
        "✗ Shirt\n(T-shirt/top)",
        "✓ Bag\n(Bag)",
        "✗ Ankle boot\n(Sneaker)",
    ]
    assert [text.get_color() for text in texts] == [style.WRONG, style.RIGHT, style.WRONG]


def test_titles_do_not_touch_each_other_or_the_border() -> None:
    images = torch.rand(16, 28, 28)
    figures = [tiles.tiles(images, ["T-shirt/top (Ankle boot)"] * 16, suptitle="one line " * 5)]
    figures.append(tiles.prediction_tiles(images, torch.zeros(16).long(), torch.full((16,), 9)))
    figures.append(tiles.tiles(images[:1], ["a"], suptitle="a long line above a single image, WWWWW"))
    for figure in figures:
        assert_no_overlap(figure)
    assert_no_overlap(charts.confusion_chart(torch.full((10, 10), 60_000)))


def test_signed_maps_are_symmetric_about_zero_and_others_begin_at_it() -> None:
    signed = tiles.map_tiles(torch.tensor([[[-4.0, 2.0]], [[0.5, 0.0]]]), "filters")
    values = only_tiles(shown(signed))
    assert values[0, :: values.shape[1] // 4].tolist() == [-1, 0.5, 1, 0]
    image = signed.axes[0].images[0]
    assert image.get_clim() == (-1, 1)
    assert image.get_cmap().name == "RdBu_r"
    image = tiles.map_tiles(torch.tensor([[[1.0, 4.0]], [[0.0, 0.0]]]), "activations").axes[0].images[0]
    assert only_tiles(np.ma.filled(image.get_array(), np.nan))[0, ::28].tolist() == [0.25, 1, 0, 0]
    assert (image.get_clim(), image.get_cmap().name) == ((0, 1), "gray")


@pytest.mark.parametrize(
    ("count", "rows", "title"), [(64, 8, "filters"), (128, 8, "filters (64 of 128)"), (3, 1, "filters")]
)
def test_at_most_64_maps_are_shown_and_the_title_says_so(count: int, rows: int, title: str) -> None:
    figure = tiles.map_tiles(torch.rand(count, 7, 7), "filters")
    assert only_tiles(shown(figure)).shape[0] == rows * tiles.MAP_TILE
    assert [text.get_text() for text in figure.texts] == [title]


def test_pixel_values_are_written_where_they_are() -> None:
    image = torch.randint(0, 256, (28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    figure = tiles.pixel_values(image, "an image")
    axes = figure.axes[0]
    written = torch.zeros_like(image)
    for text in axes.texts:
        column, row = text.get_position()
        written[int(row), int(column)] = int(text.get_text())
        gray = image[int(row), int(column)].item() / 255
        assert contrast(text.get_color(), to_hex((gray, gray, gray))) > 3.9
    assert torch.equal(written, image)
    assert np.array_equal(axes.images[0].get_array(), image)
    assert axes.images[0].get_clim() == (0, 255)
    assert_no_overlap(figure)
    assert 1300 < figure.bbox.width < 1450


def test_a_picture_is_the_same_as_pixels_and_as_a_file(tmp_path: Path) -> None:
    figure = tiles.tiles(torch.rand(2, 28, 28), ["one", "two"])
    pixels = style.to_array(figure)
    style.save_png(figure, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as file:
        assert np.array_equal(np.asarray(file.convert("RGB")), pixels)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_an_svg_stands_in_a_page_without_touching_the_rest_of_it(svgs: dict[str, str]) -> None:
    for name, svg in svgs.items():
        assert svg.startswith("<svg "), name
        assert svg.endswith("</svg>"), name
        assert svg.count("<svg ") == 1, name
        root = svg[: svg.index(">")]
        assert 'width="100%"' in root
        assert "viewBox=" in root
        assert " height=" not in root
        assert not re.findall(r"<\?|<!|<style|<metadata|<script|@import", svg), name
        assert set(re.findall(r"https?://[^\"']+", svg)) == {"http://www.w3.org/2000/svg"}
        assert all(target.startswith(("#", "data:image/png")) for target in re.findall(r'href="([^"]*)"', svg)), name
        ElementTree.fromstring(svg)


def test_what_is_neutral_in_an_svg_takes_the_colour_of_its_page(svgs: dict[str, str]) -> None:
    for name in ("curves", "reliability", "class counts", "tiles", "filters"):
        texts = re.findall(r"<text ([^>]*)>", svgs[name])
        assert texts, name
        assert all("fill: currentColor" in attributes for attributes in texts), name
    colours = set(re.findall(r"(?:fill|stroke): ([^\";]+)", svgs["curves"]))
    assert colours == {"currentColor", "none", style.TRAIN.lower(), style.VAL.lower()}
    for class_name in CLASSES:  # on both axes, while counts have the colour that fits their cell
        labels = re.findall(rf"<text ([^>]*)>{class_name}</text>", svgs["confusion"])
        assert ["fill: currentColor" in attributes for attributes in labels] == [True, True]
    assert not any(style.INK in svg for svg in svgs.values())


def test_an_svg_is_the_same_each_time_and_shares_no_id_with_another(svgs: dict[str, str]) -> None:
    again = charts.curves_chart({"train": [(1, 0.5), (2, 0.4)], "val": [(0, 0.7), (1, 0.6)]}, "loss", "nats")
    other = charts.curves_chart({"train": [(1, 0.5), (2, 0.4)], "val": [(0, 0.7), (1, 0.5)]}, "loss", "nats")
    assert style.to_svg(again) == svgs["curves"]
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in (*svgs.values(), style.to_svg(other))]
    for svg, own in zip(svgs.values(), ids, strict=False):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == set(own)
    flat = [name for own in ids for name in own]
    assert len(flat) == len(set(flat))
    assert len(ids[1]) > 3


def test_drawing_changes_no_setting_of_matplotlib() -> None:
    before = dict(matplotlib.rcParams)
    for figure in every_chart().values():
        style.to_array(figure)
    style.to_svg(figure)
    assert dict(matplotlib.rcParams) == before
