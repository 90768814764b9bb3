"""Many small images as one picture."""

import base64
import io
from collections.abc import Sequence

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from fmnist.plotting.style import DPI, FONT_SIZE, INK, RIGHT, SMALL_FONT_SIZE, WRONG, new_figure, styled

TILE = 112  # pixels of an image's longer side, about
MAP_TILE = 56  # of a filter or an activation map
MOST_MAPS = 64
GAP = 8  # pixels between images
LINE = 17  # pixels of a line of text
CELL = 0.42  # inches of a pixel with its value
HEAT = 0.55  # opacity of a map over its image


@styled
def tiles(
    images: Tensor, titles: Sequence[str] = (), colours: Sequence[str] = (), columns: int = 8, suptitle: str = ""
) -> Figure:
    """Return images in rows, each below its title.

    Bytes are shown from 0 to 255, other values from the smallest finite one to the largest; NaN is white. All images
    are one picture in one Axes, which is ten times as fast as an Axes for each. Between the images it is transparent,
    for pages on a dark ground.

    Args:
        images: (N, H, W) or (N, C, H, W), with 1 or 3 channels; N > 0.
        titles: a text above each image, of one or more lines; none, or N.
        colours: of the titles; none, or N.
        suptitle: a line above all.
    """
    assert len(titles) in (0, len(images))
    assert len(colours) in (0, len(images))
    pixels = _scaled(images if images.ndim == 4 else images[:, None])
    pixels = functional.interpolate(pixels, scale_factor=_zoom(pixels, TILE)).expand(-1, 3, -1, -1)
    pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)  # opaque; what is between them is not
    lines = [line for title in titles for line in title.split("\n")]
    above = GAP + LINE * max((title.count("\n") + 1 for title in titles), default=0)
    beside = GAP // 2 + max(0, _text_width(lines, SMALL_FONT_SIZE) - pixels.shape[3]) // 2
    cells = functional.pad(pixels, (beside, beside, above, 0))
    top = 2 * LINE if suptitle else 0
    canvas = make_grid(cells, columns, padding=0)
    right = max(0, 2 * GAP + _text_width([suptitle], FONT_SIZE) - canvas.shape[2])
    canvas = functional.pad(canvas, (0, right, top, GAP))

    figure = new_figure(canvas.shape[2] / DPI, canvas.shape[1] / DPI)
    figure.set_layout_engine("none")  # every place is known
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(canvas.permute(1, 2, 0).numpy(), aspect="auto", interpolation="none")
    axes.text(GAP, GAP, suptitle, va="top")
    height, width = cells.shape[2:]
    for place, (title, colour) in enumerate(zip(titles, colours or [INK] * len(titles), strict=True)):
        row, column = divmod(place, columns)
        x, y = width * (column + 0.5), top + height * row + above - 3
        axes.text(x, y, title, color=colour, ha="center", va="bottom", fontsize=SMALL_FONT_SIZE)
    return figure


def prediction_tiles(
    images: Tensor, predicted: Tensor, labels: Tensor, classes: Sequence[str], columns: int = 8
) -> Figure:
    """Return images titled "predicted (true)", with ✓ in green where that is right and ✗ in red where it is wrong.

    Images are (N, H, W) or (N, C, H, W), predicted classes and labels (N).
    """
    pairs = list(zip(predicted.tolist(), labels.tolist(), strict=True))
    titles = [f"{'✓' if guess == true else '✗'} {classes[guess]}\n({classes[true]})" for guess, true in pairs]
    return tiles(images, titles, [RIGHT if guess == true else WRONG for guess, true in pairs], columns)


def map_grid(maps: Tensor, columns: int = 8) -> Tensor:
    """Return the first 64 filters or activation maps (F, H, W) in rows, as colours (3, height, width), uint8.

    Blue is negative, white 0 and red positive, each map scaled by its own largest absolute value.
    """
    maps = maps[:MOST_MAPS, None].detach().float().cpu()
    largest = maps.abs().amax(dim=(2, 3), keepdim=True)
    scaled = functional.interpolate(maps / largest.where(largest > 0, 1), scale_factor=_zoom(maps, MAP_TILE))
    colours = torch.from_numpy(colormaps["RdBu_r"](scaled[:, 0].numpy() / 2 + 0.5, bytes=True))[..., :3]
    grid: Tensor = make_grid(colours.permute(0, 3, 1, 2), columns, padding=2, pad_value=255)
    return grid


@styled
def pixel_values(image: Tensor, title: str) -> Figure:
    """Return one image (H, W), uint8, with the value of each pixel written in it."""
    height, width = image.shape
    figure = new_figure(CELL * width + 0.6, CELL * height + 0.8)
    axes = figure.add_subplot()
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255)
    for row, values in enumerate(image.tolist()):
        for column, value in enumerate(values):
            colour = "white" if value < 128 else "black"
            axes.text(column, row, str(value), ha="center", va="center", color=colour, fontsize=SMALL_FONT_SIZE + 1)
    axes.set_xticks(range(width))
    axes.set_yticks(range(height))
    axes.tick_params(length=0)
    axes.set(xlabel="column", ylabel="row")
    axes.set_title(title)
    return figure


def _scaled(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) as numbers from 0 to 1, NaN as 1."""
    if images.dtype == torch.uint8:
        return images.cpu() / 255
    images = images.detach().cpu().double()
    finite = images[images.isfinite()].tolist()
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    return ((images - low) / ((high - low) or 1.0)).nan_to_num(nan=1.0).clamp(0, 1)


def _zoom(images: Tensor, size: int) -> int:
    """Return the factor that enlarges images (..., H, W) to about so many pixels."""
    return max(1, round(size / max(images.shape[-2:])))


def _text_width(lines: Sequence[str], font_size: float) -> int:
    """Return an upper bound in pixels: DejaVu Sans needs 0.5 to 0.6 of its size for a letter of a class name."""
    return round(0.62 * font_size * DPI / 72 * max(map(len, lines), default=0))


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """Return an image (C, H, W), uint8, under a map (H, W) from 0, dark blue, to 1, yellow, as (3, H, W), uint8."""
    colours = torch.from_numpy(colormaps["viridis"](heat.numpy()))[..., :3].permute(2, 0, 1)
    return (255 * HEAT * colours + (1 - HEAT) * image).round().to(torch.uint8)


def data_url(pixels: Tensor) -> str:
    """Return a PNG of pixels (1, H, W) or (3, H, W), uint8, as a `data:` URL."""
    file = io.BytesIO()
    to_pil_image(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
