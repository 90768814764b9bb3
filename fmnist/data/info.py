"""The facts of a dataset that everything else refers to: a value that travels in each checkpoint."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

ImageShape = tuple[int, int, int]
"""Channels, height and width (C, H, W)."""
Fit = Literal["item", "crop", "pad", "stretch"]
"""What predict makes of a picture of any size: its largest item, bright on black; or all of it, resized."""

MAX_SIZE = 2**16
"""Largest side of an image, and largest number of classes."""


@dataclass(frozen=True)
class DatasetInfo:
    """What a network and its users have to know about a dataset.

    Args:
        classes: names of the K classes, in the order of the labels.
        image_shape: channels, height and width (C, H, W).
        mean, std: of the training images' pixels, scaled to 0..1, by channel (C).
        fit: how a picture of another size becomes an image of this dataset.
        margin: pixels at each side that an item leaves black, where `fit` is "item".
    """

    name: str
    classes: tuple[str, ...]
    image_shape: ImageShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "item"
    margin: int = 0

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 pixels (N, C, H, W) as float32 with mean 0 and standard deviation 1 over the training images."""
        scale, offset = [1 / (255 * std) for std in self.std], [m / s for m, s in zip(self.mean, self.std, strict=True)]
        if len(scale) == 1:
            return images.float().mul_(scale[0]).sub_(offset[0])
        return images.float().mul_(_by_channel(scale, images)).sub_(_by_channel(offset, images))

    @property
    def black(self) -> tuple[float, ...]:
        """The value of a black pixel in a normalised image, by channel (C)."""
        return tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any) -> "DatasetInfo":
        """Return the dataset of plain values, which may come from a stranger.

        Raises:
            ValueError: if they aren't those of a dataset.
        """
        try:
            channels, height, width = map(int, values["image_shape"])
            info = cls(
                name=str(values["name"]),
                classes=tuple(map(str, values["classes"])),
                image_shape=(channels, height, width),
                mean=_numbers(values["mean"], channels),
                std=_numbers(values["std"], channels),
                fit=values.get("fit", "item"),
                margin=int(values.get("margin", 0)),
            )
            sizes = (*info.image_shape, len(info.classes))
            if min(sizes) < 1 or max(sizes) > MAX_SIZE or not all(std > 0 for std in info.std):
                raise ValueError(f"image_shape, classes or std is out of range: {sizes}")
            if info.fit not in get_args(Fit) or not 0 <= 2 * info.margin < min(height, width):
                raise ValueError(f"fit or margin is out of range: {info.fit!r}, {info.margin}")
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"these are not the facts of a dataset: {error}") from error
        return info


def _numbers(values: Any, channels: int) -> tuple[float, ...]:
    """Return a number for each channel; older versions stored one without a list."""
    numbers = tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),)
    if len(numbers) != channels:
        raise ValueError(f"{len(numbers)} numbers for {channels} channels")
    return numbers


def _by_channel(values: Sequence[float], images: Tensor) -> Tensor:
    """Return values (C) as a tensor (C, 1, 1) of float32, on the device of the images."""
    return torch.tensor(values, dtype=torch.float32, device=images.device)[:, None, None]


FASHION_MNIST = DatasetInfo(
    name="Fashion-MNIST",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    image_shape=(1, 28, 28),
    mean=(0.2860,),  # of the 60,000 training images; 0.1307 and 0.3081 are MNIST's
    std=(0.3530,),
)
"""Source: https://github.com/zalandoresearch/fashion-mnist"""
