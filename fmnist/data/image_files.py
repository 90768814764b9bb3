"""Find image files, read them as 8-bit gray or RGB pictures, and resize these."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from glob import escape, iglob
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from fmnist.config.logs import stderr_silent
from fmnist.data.info import ImageShape

# No others: Pillow would run Ghostscript for a PostScript file.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")
SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".pbm", ".pgm", ".ppm"),
    *(".svg", ".heic", ".heif"),  # not supported, but reported instead of ignored
}
"""Suffixes of the files in a folder that are images."""

LIGHT = 128  # smallest gray value that is light
DECODED = 16  # per pixel of the result: smallest side to which a JPEG is reduced while it is decoded
REDUCED = 8  # the same for the longer side of all pictures, before they are prepared
LARGEST = 1024  # what that is at most: preparing takes about 150 bytes per pixel
WHITES = (1, 255, 1023, 4095, 16383, 65535)  # of masks, and of 8, 10, 12, 14 and 16 bits
LIBTIFF = threading.Lock()
AVIF = (b"avif", b"avis")  # brands in the head of a file
MAX_PIXELS = 89_478_485  # of a picture in memory: 256 MiB, Pillow's limit


def find_images(where: str) -> list[str]:
    """Return the image files of a path, sorted.

    Args:
        where: a file; a folder, whose images are taken but not those of its subfolders; or a pattern, in which `**`
            matches any folders.

    Raises:
        ValueError: if there are none.
    """
    path = Path(where)
    if path.is_file():
        return [where]
    pattern = os.path.join(escape(where), "*") if path.is_dir() else where  # noqa: PTH118 (keeps ./)
    found = [name for name in iglob(pattern, recursive=True) if Path(name).is_file()]  # noqa: PTH207 (absolute, too)
    if path.is_dir():
        found = [name for name in found if Path(name).suffix.lower() in SUFFIXES]
    if not found:
        problem = "no images in this folder" if path.is_dir() else "no such file, and as a pattern it matches none"
        raise ValueError(f"images={where}: {problem}")
    return sorted(found)


@contextlib.contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignore warnings of harmless damage, and of more than MAX_PIXELS, as long as it isn't twice as many."""
    with warnings.catch_warnings():  # around all threads that read pictures, as it isn't made for use in each
        warnings.simplefilter("ignore")
        yield


def read_picture(file: str | Path | BinaryIO, size: int) -> Image.Image:
    """Return the picture in a file, the first one if there are several, as 8-bit gray or RGB.

    It is called within `pillow_warnings_ignored`.

    Args:
        file: its path, or an open file. It is in one of `FORMATS`, in any colour mode, with at most `MAX_PIXELS`. Only
            a JPEG may have twice as many, as it can be reduced while it is decoded.
        size: the longer side of the image that is made of it, in pixels. That of the picture is reduced to less than 16
            times as much.

    Raises:
        ValueError: with the reason why the file can't be read.
    """
    try:
        return _decode(file, size)
    except Exception as error:  # for damaged files Pillow raises almost anything: SyntaxError, struct.error, ...
        raise ValueError(_explain(file, error)) from error


@contextlib.contextmanager
def _libtiff_silent() -> Iterator[None]:
    with LIBTIFF, stderr_silent():
        yield


def _decode(file: str | Path | BinaryIO, size: int) -> Image.Image:
    with Image.open(file, formats=FORMATS) as image:
        image.draft(None, (DECODED * size,) * 2)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        # libtiff writes its warnings directly to the standard error, which all threads share.
        with _libtiff_silent() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return to_eight_bits(image, size)


def to_eight_bits(image: Image.Image, size: int) -> Image.Image:
    """Return a picture of any mode as 8-bit gray or RGB, reduced as by `read_picture`."""
    if image.mode.startswith("I") or image.mode == "F":
        picture = _scaled(image)
    elif image.has_transparency_data:
        picture = image.convert("RGBA")
    else:  # by way of RGB, as Pillow converts some colour modes to nothing else
        picture = image.convert("L" if image.mode in ("1", "L") else "RGB")
    picture = picture.reduce(max(1, max(picture.size) // min(REDUCED * size, LARGEST)))
    return _on_contrasting_background(picture) if picture.mode == "RGBA" else picture


def resized(picture: Image.Image, image_shape: ImageShape, fit: str) -> NDArray[np.uint8]:
    """Return a picture as pixels (C, H, W). One that has the right size and colours keeps its pixels.

    Args:
        picture: 8-bit gray or RGB.
        image_shape: (C, H, W) of the result, C being 1 or 3.
        fit: "crop" cuts off what is too long, "pad" fills what is missing with black, "stretch" changes the aspect
            ratio. What is made smaller is averaged, so that nothing is skipped.
    """
    channels, height, width = image_shape
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        method = Image.Resampling.BICUBIC
        if fit == "crop":
            picture = ImageOps.fit(picture, (width, height), method)
        elif fit == "pad":
            picture = ImageOps.pad(picture, (width, height), method)
        else:
            picture = picture.resize((width, height), method)
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1).copy()


def _on_contrasting_background(picture: Image.Image) -> Image.Image:
    """Return an RGBA picture as RGB, with black in place of transparency, or with white if what it shows is dark."""
    alpha = picture.getchannel("A")
    opaque = alpha.point([0] * LIGHT + [255] * LIGHT)
    light = ImageStat.Stat(picture.convert("L"), opaque).median[0] < LIGHT
    background = Image.new("RGB", picture.size, "white" if light else "black")
    return Image.composite(picture.convert("RGB"), background, alpha)


def _scaled(image: Image.Image) -> Image.Image:
    """Return integers or floats, scaled so that the smallest usual white that none of them exceeds becomes 255."""
    values = np.array(image.convert("F"))
    values = np.nan_to_num(values, copy=False, nan=0, posinf=0, neginf=0)
    brightest = float(values.max())
    white = next((white for white in WHITES if brightest <= white), brightest)
    return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))


def _explain(file: str | Path | BinaryIO, error: Exception) -> str:
    """Return why a file can't be read."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels (a JPEG may have twice as many)"
    if isinstance(error, UnidentifiedImageError):
        head, suffix = _head(file)
        if not head:
            return "it is empty"
        if b"<svg" in head or suffix == ".svg":
            return "SVG isn't supported; save it as PNG"
        if head[4:8] == b"ftyp" and head[8:12] not in AVIF and suffix != ".avif":
            return "HEIC isn't supported; save it as JPEG or PNG"
        return "it is damaged, or not in a supported format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it is truncated or damaged ({' '.join(str(error).split()) or type(error).__name__})"


def _head(file: str | Path | BinaryIO) -> tuple[bytes, str]:
    """Return the first bytes of a file, and the suffix of its name, "" of an open file."""
    if isinstance(file, str | Path):
        with Path(file).open("rb") as content:
            return content.read(1024), Path(file).suffix.lower()
    file.seek(0)
    return file.read(1024), ""
