"""Images from Python, of any kind, as pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fmnist.data.image_files import find_images

CHANNELS = (1, 3, 4)
"""Gray, RGB and RGBA."""


def split_batch(images: Any) -> tuple[list[Any], bool]:
    """Return the images one by one, and whether they were several.

    Args:
        images: the path of a file, or of a folder or a pattern, which are several; a Pillow image; an array or a tensor
            (H, W), (H, W, C), (C, H, W), or of several images: (N, H, W), (N, H, W, C), (N, C, H, W); or a sequence of
            any of these for single images. A length of 1, 3 or 4 is taken for that of the channels, the last axis
            before the first one.

    Raises:
        ValueError: if an array has other dimensions, or there is no such file.
        TypeError: if the images are of another kind.
    """
    if isinstance(images, str | Path):
        files = find_images(str(images))
        return list(files), files != [str(images)]
    if isinstance(images, Image.Image):
        return [images], False
    if isinstance(images, Tensor):
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ndarray):
        if images.ndim == 4 or (images.ndim == 3 and not {images.shape[0], images.shape[-1]} & set(CHANNELS)):
            return list(images), True
        if images.ndim not in (2, 3):
            raise ValueError(f"images of shape {images.shape}: must have 2 to 4 dimensions")
        return [images], False
    if not isinstance(images, Sequence):
        raise TypeError(f"images: must be paths, Pillow images, arrays or tensors, not {type(images).__name__}")
    return [single for image in images for single in _singles(image)], True


def _singles(image: Any) -> Iterator[Any]:
    """Yield what must be a single image.

    Raises:
        ValueError: if it is several.
    """
    found, several = split_batch(image)
    if several:
        raise ValueError("images: the items of a sequence must be single images")
    yield from found


def to_picture(image: NDArray[Any]) -> Image.Image:
    """Return an array (H, W), (H, W, C) or (C, H, W) as a picture.

    Args:
        image: of bytes, integers from 0 to 255, truth values, or floats from 0 to 1.

    Raises:
        ValueError: if it has other values or dimensions.
    """
    if image.ndim == 3 and image.shape[-1] not in CHANNELS:
        image = image.transpose(1, 2, 0)
    if not image.size or (image.ndim == 3 and image.shape[-1] not in CHANNELS):
        raise ValueError(f"shape {image.shape}: must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    low, high = image.min(), image.max()
    if image.dtype == bool:
        image = image * np.uint8(255)
    elif np.issubdtype(image.dtype, np.floating):
        if not (low >= 0 and high <= 1):  # also NaN
            raise ValueError(f"floats from {low:.3g} to {high:.3g}: must be from 0 to 1, not normalised")
        image = (image * 255).round()
    elif not (low >= 0 and high <= 255):
        raise ValueError(f"integers from {low} to {high}: must be from 0 to 255")
    pixels = image.astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
