"""What the data module has to know of a dataset."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Gt, Le, MinLen
from torch import Tensor

from fmnist.data import idx
from fmnist.data.idx import DataUnavailableError
from fmnist.data.info import DatasetInfo

Level = Annotated[float, Gt(0), Le(1)]
Levels = Annotated[list[Level], MinLen(1)]
Split = tuple[Tensor, Tensor]
"""Images (N, C, H, W), uint8, and labels (N), int64."""


class Contents(NamedTuple):
    """All images of a dataset."""

    splits: Mapping[str, Split]
    """By name: "train"; "test" and "val" where the dataset has them."""
    hashes: Mapping[str, str]
    """SHA-256 by file or split: two datasets with the same ones hold the same images and labels."""


class ImageDataset(ABC):
    """A dataset that is held in memory. It is read when its images, or facts that only they tell, are asked for.

    Args:
        root: its folder; None where it has none.
    """

    def __init__(self, root: str | None) -> None:
        self.root = None if root is None else Path(root)

    @abstractmethod
    def read(self) -> Contents:
        """Find or download the files, and return what they hold. Several processes may call it at once.

        Raises:
            DataUnavailableError: if there are no such files, or they are damaged.
        """

    @functools.cached_property
    def contents(self) -> Contents:
        """What `read` returns. `del` frees it."""
        return self.read()

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """The dataset's facts."""


def idx_split(images_file: idx.DataFile, labels_file: idx.DataFile) -> Split:
    """Return the split that two IDX files hold, one with the images and one with the labels.

    The images may be gray, (N, H, W), or have channels, (N, C, H, W). Of several integers for each image the first is
    the label.

    Raises:
        DamagedFileError: if the files don't hold that.
    """
    images, labels = idx.values(images_file), idx.values(labels_file)
    shape = "x".join(map(str, images.shape))
    if images.ndim == 3:
        images = images[:, None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise idx.DamagedFileError(
            f"{images_file.path} must hold gray or RGB images of bytes, not {shape} of {images.dtype.name}"
        )
    if labels.ndim == 2 and labels.shape[1] and labels.dtype != np.uint8:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise idx.DamagedFileError(f"{labels_file.path} must hold labels from 0 on, one for each image")
    if len(labels) != len(images):
        raise idx.DamagedFileError(
            f"{images_file.path} holds {len(images):,} images, but {labels_file.path.name} {len(labels):,} labels"
        )
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def statistics(
    images: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of images (N, C, H, W), uint8, scaled to 0..1, by channel (C).

    Args:
        mean, std: what the user gives instead.

    Raises:
        ValueError: if they aren't C numbers.
    """
    channels = images.shape[1]
    for key, given in (("mean", mean), ("std", std)):
        if given is not None and len(given) != channels:
            raise ValueError(
                f"data.{key}={list(given)}: must be as many numbers as the images have channels: {channels}"
            )
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(dim=1, keepdim=True)
    found = shares @ values
    variance = (shares * (values - found[:, None]) ** 2).sum(dim=1)
    smallest = 1 / 255  # of images that all have one colour
    return tuple(mean or found.tolist()), tuple(std or variance.sqrt().clamp(min=smallest).tolist())


def digest(split: Split) -> str:
    """Return the SHA-256 of a split's images and labels."""
    found = hashlib.sha256()
    for values in split:
        found.update(values.numpy().tobytes())
    return found.hexdigest()


def check_labels(where: str, classes: Sequence[str], splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the names of the classes, once they are known to fit the labels, and the splits each other.

    Args:
        where: the dataset, as the user names it, for messages.

    Raises:
        DataUnavailableError: if they don't.
    """
    shapes = {split: tuple(images.shape[1:]) for split, (images, _) in splits.items()}
    if len(set(shapes.values())) > 1:
        raise DataUnavailableError(f"{where}: images of all splits must have one shape, but these have {shapes}")
    for split, (_, labels) in splits.items():
        if (largest := int(labels.max())) >= len(classes):
            raise DataUnavailableError(
                f"{where}: the {split} images have the label {largest}, but there are {len(classes)} classes (0 to "
                f"{len(classes) - 1})"
            )
    if len(classes) < 2:
        raise DataUnavailableError(f"{where}: must have at least two classes, but has one")
    if repeated := [name for name, count in Counter(classes).items() if count > 1]:
        raise DataUnavailableError(f"{where}: two classes are named {repeated[0]}")
    return tuple(classes)
