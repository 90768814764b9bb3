"""A person's image file as what the network expects: 28x28 gray pixels, the item bright on black.

Where the picture isn't such an image already, it goes the way of the dataset's own photos: edges of the background's
colour trimmed, the longest side resized to 28, centred, negated, as those were taken on a light background.
Source: Xiao et al., Fashion-MNIST, https://arxiv.org/abs/1708.07747, section 2. Three things differ:

- Resizing averages over the pixels that become one. The dataset's skips rows and columns, which leaves noise and jagged
  edges of a photo, and then sharpens.
- A picture on a dark background isn't negated.
- The background becomes 0, as it is in the dataset, even if it is gray rather than white.
"""

import contextlib
import os
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from glob import iglob
from itertools import accumulate
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fmnist.config.logs import stderr_silent
from fmnist.data.info import IMAGE_SHAPE

_, HEIGHT, WIDTH = IMAGE_SHAPE
# No others: Pillow would run Ghostscript for a PostScript file.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")
SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".pbm", ".pgm", ".ppm"),
    *(".svg", ".heic", ".heif"),  # refused, but not passed over in silence
}
"""What makes a file in a folder one of its images, if it isn't hidden."""

LIGHT = 128  # gray, of which and above a background is light
CLOSE = 0.05 * 255  # of the background's gray: the paper's 5 %
CELLS = 4 * max(HEIGHT, WIDTH)  # along the longer side, whose means tell where the item is: noise would in no pixel
CORNER = 16  # pixels, at most, of the squares in the corners that show the background
ENOUGH = 16 * max(HEIGHT, WIDTH)  # pixels of a side, above which a JPEG may be decoded at half or less of its size

Background = Literal["auto", "light", "dark"]


@dataclass(frozen=True)
class Prepared:
    """An image for the network: uint8 (C, H, W), and whether light and dark were exchanged."""

    pixels: Tensor
    inverted: bool


def find_images(where: str) -> list[str]:
    """The files that a person means, sorted.

    Args:
        where: a file; a folder, whose files with an image's suffix are meant, but not those of its folders; or a glob,
            in which `**` stands for any folders.

    Raises:
        ValueError: if there are none.
    """
    path = Path(where)
    if path.is_file():
        return [where]
    if path.is_dir():
        with os.scandir(path) as entries:
            found = [entry.path for entry in entries if entry.is_file() and _is_named_as_image(entry.name)]
    else:
        found = [name for name in iglob(where, recursive=True) if Path(name).is_file()]  # noqa: PTH207 (absolute, too)
    if not found:
        nothing = "no images in this folder" if path.is_dir() else "there is no such file, and nothing matches"
        raise ValueError(f"images={where}: {nothing}")
    return sorted(found)


def _is_named_as_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")  # hidden, as macOS's ._photo.jpg


def read_image(file: str | Path, background: Background = "auto") -> Prepared:
    """The picture in a file, the first where there are several.

    Args:
        file: of one of `FORMATS`, of any size up to Pillow's limit of 89 million pixels, and any kind of colours.
        background: of the item. "auto" looks at the corners.

    Raises:
        ValueError: with the reason why there is no picture to be had.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on harmless damage, which no one can mend
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                image.draft(None, (ENOUGH, ENOUGH))
                # libtiff writes about a damaged file past Python and its warnings.
                with stderr_silent() if image.format == "TIFF" else contextlib.nullcontext():
                    image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return prepare(_gray(image, background), background)
    except Exception as error:  # on damaged files Pillow raises almost anything: SyntaxError, struct.error, ...
        raise ValueError(_reason(Path(file), error)) from error


def prepare(gray: Image.Image, background: Background = "auto") -> Prepared:
    """A picture of 8-bit gray for the network. One of 28x28 pixels is taken as it lies, and at most inverted."""
    level = _corner_gray(gray)
    inverted = level >= LIGHT if background == "auto" else background == "light"
    if inverted:
        gray, level = ImageOps.invert(gray), 255 - level
    if gray.size != (WIDTH, HEIGHT):
        # Corners that are bright now are the item's: there is no background to see.
        gray = _fit(gray, level if level < LIGHT else 0)
    return Prepared(torch.frombuffer(bytearray(gray.tobytes()), dtype=torch.uint8).view(IMAGE_SHAPE), inverted)


def _fit(gray: Image.Image, level: int) -> Image.Image:
    """Trims what is close to the background's gray `level`, resizes, centres on black."""
    step = max(1, max(gray.size) // CELLS)
    cells = gray.reduce(step).point([255 * (abs(value - level) > CLOSE) for value in range(256)]).getbbox()
    left, top, right, bottom = (step * edge for edge in cells or (0, 0, *gray.size))
    box = (left, top, min(right, gray.width), min(bottom, gray.height))
    item = gray.crop(box)
    scale = min(WIDTH / item.width, HEIGHT / item.height)
    size = (max(1, round(item.width * scale)), max(1, round(item.height * scale)))
    # Of test images enlarged to photos, 3 in 100 more are named right than with a bilinear filter, which blurs.
    resized = item.resize(size, Image.Resampling.LANCZOS)
    resized = resized.point([max(0, round((value - level) * 255 / (255 - level))) for value in range(256)])
    canvas = Image.new("L", (WIDTH, HEIGHT))
    canvas.paste(resized, ((WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2))
    return canvas


def _corner_gray(gray: Image.Image) -> int:
    """The median of the four corners. (That of the whole border is bright in two of the dataset's 70,000 images.)"""
    width, height = gray.size
    side = max(1, min(CORNER, min(width, height) // 20))
    corners = [(x, y, x + side, y + side) for x in (0, width - side) for y in (0, height - side)]
    return _median([sum(counts) for counts in zip(*(gray.crop(box).histogram() for box in corners), strict=True)])


def _gray(image: Image.Image, background: Background) -> Image.Image:
    """Any kind of colours as 8-bit gray, what is transparent as background."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image)
    if not image.has_transparency_data:
        # By way of RGB, as Pillow knows no other from some kinds of colours.
        return (image if image.mode in ("1", "L", "RGB") else image.convert("RGB")).convert("L")
    colours = image if image.mode == "RGBA" else image.convert("RGBA")
    gray, alpha = colours.convert("L"), colours.getchannel("A")
    light = background == "light"
    if background == "auto":  # the one from which the item stands out
        light = _median(gray.histogram(alpha.point([0] * LIGHT + [255] * LIGHT))) < LIGHT
    return Image.composite(gray, Image.new("L", gray.size, 255 if light else 0), alpha)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit pixels as 0..255; those of other integers and floats by the least white that is usual and holds them."""
    values = torch.frombuffer(bytearray(image.convert("F").tobytes()), dtype=torch.float32).nan_to_num_(0, 0, 0)
    brightest = values.max().item()
    whites = (65535.0,) if image.mode.startswith("I;16") else (1.0, 255.0, 65535.0, brightest)
    white = next(white for white in whites if brightest <= white)
    scaled = values.mul_(255 / white).round_().clamp_(0, 255).to(torch.uint8)
    return Image.frombytes("L", image.size, scaled.numpy().tobytes())


def _median(histogram: Sequence[int]) -> int:
    return bisect_left([*accumulate(histogram)], sum(histogram) / 2)


def _reason(file: Path, error: Exception) -> str:
    """Why a file gives no picture, in words for the person who has it."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        with file.open("rb") as content:
            head = content.read(1024)
        if not head:
            return "it is empty"
        if b"<svg" in head or file.suffix.lower() == ".svg":
            return "an SVG drawing has no pixels; save it as PNG first"
        if head[4:8] == b"ftyp" and file.suffix.lower() != ".avif":
            return "HEIC can't be read; save it as JPEG or PNG first"
        return "it is damaged, or no image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it is truncated or damaged ({' '.join(str(error).split()) or type(error).__name__})"
