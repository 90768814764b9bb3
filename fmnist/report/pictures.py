"""Pixels as pictures of a page: `data:` addresses, and the words that belong to them."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fmnist.data.info import CLASSES

SIDE = 28  # pixels that a small map is enlarged to, about
GAP = 2  # pixels between maps
MOST_MAPS = 32
HEAT = 0.55  # of an overlay; the rest is the image


@dataclass(frozen=True)
class Picture:
    """One image and what it shows."""

    address: str
    alt: str
    label: str = ""
    """A word or two below it."""


@dataclass(frozen=True)
class Example:
    """A prediction: the image, and how the network took it."""

    pictures: list[Picture]
    predicted: str
    true: str
    confidence: float
    right: bool


def examples(
    images: Tensor,
    labels: Tensor,
    predicted: Tensor,
    confidence: Tensor,
    chosen: Iterable[int],
    heat: tuple[Tensor, Tensor] | None = None,
) -> list[Example]:
    """The predictions of some images.

    Args:
        images: uint8 (N, H, W).
        labels: true classes (N).
        predicted: classes (N).
        confidence: of the predicted class (N).
        chosen: which of the N.
        heat: what matters for the predicted class and what for the true one, each (len(chosen), H, W) from 0 to 1.
    """
    found = []
    for place, index in enumerate(chosen):
        guess, true = CLASSES[int(predicted[index])], CLASSES[int(labels[index])]
        pictures = [Picture(address(images[index]), f"{true}, image {index}", "image" if heat else "")]
        if heat:
            questions = {guess: heat[0][place], true: heat[1][place]}  # one where it is right
            pictures += [
                Picture(
                    address(overlay(images[index], values)),
                    f"what matters for {name}",
                    f"for {name}" if values.any() else f"for {name}: nothing",
                )
                for name, values in questions.items()
            ]
        found.append(Example(pictures, guess, true, float(confidence[index]), guess == true))
    return found


def sample(candidates: Tensor, most: int) -> list[int]:
    """Some of the candidates (N) that are true, the same for the same candidates, in rising order."""
    places = candidates.nonzero().flatten()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    return sorted(places[order[:most]].tolist())


def surest(candidates: Tensor, confidence: Tensor, most: int) -> list[int]:
    """Those of the candidates (N) with the highest confidence (N), falling."""
    places = candidates.nonzero().flatten()
    order = confidence[places].argsort(descending=True, stable=True)
    return list(map(int, places[order[:most]].tolist()))


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """The image (H, W), uint8, under a map (H, W) from 0, dark blue, to 1, yellow: (H, W, 3), uint8.

    The colours are of equal steps to the eye: viridis, of matplotlib.
    """
    colours = torch.from_numpy(colormaps["viridis"](heat.numpy()))[..., :3]
    return (255 * HEAT * colours + (1 - HEAT) * image[..., None]).round().to(torch.uint8)


def mosaic(maps: Tensor, columns: int = 8) -> str:
    """The address of the first 32 maps (F, H, W) side by side.

    Blue is negative, white 0 and red positive, to each map's own largest absolute value.
    """
    maps = maps[:MOST_MAPS]
    largest = maps.flatten(1).abs().amax(dim=1)[:, None, None]
    zoom = max(1, SIDE // max(maps.shape[1:]))
    scaled = (maps / largest.where(largest > 0, 1)).repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2)
    pixels = torch.from_numpy(colormaps["RdBu_r"](scaled.numpy() / 2 + 0.5, bytes=True))
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    pixels = functional.pad(pixels, (0, 0, 0, GAP, 0, GAP, 0, rows * columns - len(maps)))
    _, height, width, channels = pixels.shape
    pixels = pixels.unflatten(0, (rows, columns)).transpose(1, 2).reshape(rows * height, columns * width, channels)
    return address(pixels[:-GAP, :-GAP])


def address(pixels: Tensor) -> str:
    """A PNG of (H, W) gray, (H, W, 3) colour or (H, W, 4) colour with opacity, uint8, as a `data:` address."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
