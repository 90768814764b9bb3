"""From an image file to the pixels that a network expects."""

from pathlib import Path

import torch
from PIL import Image

from fmnist.data.image_files import pillow_warnings_ignored, read_picture, resized
from fmnist.data.info import DatasetInfo
from fmnist.predict.preparation import Prepared, prepare


def read_image(file: str | Path, dataset: DatasetInfo) -> Prepared:
    """Return the picture in a file as the images of a dataset are: its item on black, or the whole picture resized.

    Raises:
        ValueError: with the reason why the file can't be read, or no item found in the picture.
    """
    with pillow_warnings_ignored():
        return fit(read_picture(file, max(dataset.image_shape)), dataset)


def fit(picture: Image.Image, dataset: DatasetInfo) -> Prepared:
    """Return a picture of 8-bit gray or RGB as the images of a dataset are.

    Raises:
        ValueError: if there is no item in it.
    """
    if dataset.fit == "item":
        return prepare(picture, dataset.image_shape, dataset.margin)
    return Prepared(torch.from_numpy(resized(picture, dataset.image_shape, dataset.fit)), inverted=False)
