"""Many small images as one picture."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fmnist.plotting.style import DPI, FONT_SIZE, INK, RIGHT, SMALL_FONT_SIZE, WRONG, new_figure, styled

TILE = 112  # pixels, about, of an image's longer side
MAP_TILE = 56  # of a filter's or a map's, of which there are many
GAP = 8  # pixels between images, and around them
MOST_MAPS = 64  # more would be too small to see anything in
CELL = 46  # pixels of a pixel whose value is written in it
POINT = DPI / 72  # pixels


@styled
def tiles(
    images: Tensor,
    titles: Sequence[str] = (),
    colours: Sequence[str] = (),
    columns: int = 8,
    suptitle: str = "",
) -> Figure:
    """Gray images in rows, black for the smallest finite value and white for the largest; for bytes 0 and 255.

    They are one image in one Axes, which is ten times as fast as an Axes for each.

    Args:
        images: (N, H, W), any numbers.
        titles: a text above each image, of one or more lines; none, or N.
        colours: of the titles; none, or N.
        columns: images in a row.
        suptitle: a line above all.
    """
    is_bytes = images.dtype == torch.uint8
    images = images.detach().cpu().double()
    finite = images[images.isfinite()]
    low, high = (0.0, 255.0) if is_bytes else (finite.min().item(), finite.max().item()) if len(finite) else (0.0, 1.0)
    images = (images - low) / ((high - low) or 1.0)
    return _grid(images, "gray", (0.0, 1.0), titles, colours, columns, suptitle)


def prediction_tiles(
    images: Tensor, predicted: Tensor, labels: Tensor, classes: Sequence[str], columns: int = 8
) -> Figure:
    """Images under what they were taken for and, in brackets, what they are; ✓ and green if right, ✗ and red if not.

    Args:
        images: (N, H, W), any numbers.
        predicted: classes (N).
        labels: true classes (N).
        classes: names of the K classes.
        columns: images in a row.
    """
    pairs = list(zip(predicted.tolist(), labels.tolist(), strict=True))
    titles = [f"{'✓' if guess == true else '✗'} {classes[guess]}\n({classes[true]})" for guess, true in pairs]
    return tiles(images, titles, [RIGHT if guess == true else WRONG for guess, true in pairs], columns)


@styled
def map_tiles(maps: Tensor, suptitle: str, columns: int = 8) -> Figure:
    """Filters or activation maps, the first 64 of them, each scaled by its own largest absolute value.

    If any value is negative, blue is negative, white 0 and red positive; otherwise black is 0 and white the largest.

    Args:
        maps: (F, H, W).
        suptitle: what they are; "64 of 128" is added where not all are shown.
        columns: maps in a row.
    """
    shown = maps[:MOST_MAPS].detach().cpu().double()
    if len(maps) > MOST_MAPS:
        suptitle = f"{suptitle} ({MOST_MAPS} of {len(maps)})"
    signed = bool((shown < 0).any())
    if shown.numel():
        largest = shown.flatten(1).abs().amax(dim=1)[:, None, None]
        shown = shown / largest.where(largest != 0, 1.0)
    if signed:
        return _grid(shown, "RdBu_r", (-1.0, 1.0), (), (), columns, suptitle, MAP_TILE)
    return _grid(shown, "gray", (0.0, 1.0), (), (), columns, suptitle, MAP_TILE)


@styled
def pixel_values(image: Tensor, title: str) -> Figure:
    """One image with the value of each pixel written in it.

    Args:
        image: (H, W), uint8.
        title: a line above.
    """
    height, width = image.shape
    left, top = 60, 70
    size = (left + CELL * width + GAP, top + CELL * height + GAP)
    figure, axes = _pixel_axes(size, (left, top, CELL * width, CELL * height), (-0.5, width - 0.5, height - 0.5, -0.5))
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="nearest")
    for row, values in enumerate(image.tolist()):
        for column, value in enumerate(values):
            colour = "white" if value < 128 else "black"
            axes.text(column, row, str(value), ha="center", va="center", color=colour, fontsize=SMALL_FONT_SIZE + 1)
    axes.set_axis_on()
    axes.set_xticks(range(width))
    axes.set_yticks(range(height))
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="column", ylabel="row")
    axes.spines[:].set_visible(False)
    figure.text(GAP / size[0], 1 - GAP / size[1], title, va="top")
    return figure


def _grid(
    images: Tensor,
    colormap: str,
    limits: tuple[float, float],
    titles: Sequence[str],
    colours: Sequence[str],
    columns: int,
    suptitle: str,
    tile: int = TILE,
) -> Figure:
    """Images (N, H, W) as colours, whose range is `limits`, with their titles; all sizes here are pixels."""
    assert len(titles) in (0, len(images))
    assert len(colours) in (0, len(images))
    count, height, width = images.shape
    zoom = max(1, round(tile / max(height, width)))
    height, width = zoom * height, zoom * width
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    lines = [line for title in titles for line in title.split("\n")]
    above = math.ceil(1.3 * SMALL_FONT_SIZE * POINT * max((title.count("\n") + 1 for title in titles), default=0))
    step_y = above + height + GAP
    step_x = max(width, _text_width(lines, SMALL_FONT_SIZE)) + GAP
    top = GAP + (math.ceil(1.6 * FONT_SIZE * POINT) if suptitle else 0)

    canvas = np.full((rows * step_y, columns * step_x), np.nan)
    enlarged = images.repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2).numpy()
    indent = (step_x - GAP - width) // 2
    corners = [(index // columns * step_y + above, index % columns * step_x + indent) for index in range(count)]
    for (y, x), image in zip(corners, enlarged, strict=True):
        canvas[y : y + height, x : x + width] = image

    tall, wide = canvas.shape
    size = (max(GAP + wide, 2 * GAP + _text_width([suptitle], FONT_SIZE)), top + tall)
    extent = (0, wide, tall, 0)
    figure, axes = _pixel_axes(size, (GAP, top, wide, tall), extent)
    low, high = limits
    axes.imshow(canvas, colormap, vmin=low, vmax=high, extent=extent, aspect="auto", interpolation="nearest")
    for (y, x), title, colour in zip(corners, titles, colours or [INK] * count, strict=False):
        axes.text(x + width / 2, y - 3, title, color=colour, ha="center", va="bottom", fontsize=SMALL_FONT_SIZE)
    if suptitle:
        figure.text(GAP / size[0], 1 - GAP / size[1], suptitle, va="top")
    return figure


def _pixel_axes(
    size: tuple[int, int], box: tuple[int, int, int, int], limits: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
    """A figure of so many pixels (width, height), and Axes without axis lines at left, top, width, height in it.

    Args:
        size: width and height of the figure.
        box: left, top, width and height of the Axes.
        limits: their coordinates: left, right, bottom, top.
    """
    figure = new_figure(size[0] / DPI, size[1] / DPI)
    figure.set_layout_engine("none")  # every place is known
    left, top, width, height = box
    axes = figure.add_axes((left / size[0], 1 - (top + height) / size[1], width / size[0], height / size[1]))
    axes.set(xlim=limits[:2], ylim=limits[2:])
    axes.set_axis_off()
    return figure, axes


def _text_width(lines: Sequence[str], font_size: float) -> int:
    """An upper bound: DejaVu Sans needs 0.5 to 0.6 of its size for a letter of a class name."""
    return math.ceil(0.62 * font_size * POINT * max(map(len, lines), default=0))
