"""The facts of a dataset that everything else refers to: a value that travels in each checkpoint."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

MAX_SIZE = 2**16
"""Largest side of an image, and largest number of classes."""


@dataclass(frozen=True)
class DatasetInfo:
    """What a network and its users have to know about a dataset.

    Args:
        classes: names of the K classes, in the order of the labels.
        image_shape: channels, height and width (C, H, W).
        mean, std: of the training images' pixels, scaled to 0..1.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: float
    std: float

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 pixels (N, C, H, W) as float32 with mean 0 and standard deviation 1 over the training images."""
        return images.float().mul_(1 / (255 * self.std)).sub_(self.mean / self.std)

    @property
    def black(self) -> float:
        """The value of a black pixel in a normalised image."""
        return -self.mean / self.std

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {**asdict(self), "classes": list(self.classes), "image_shape": list(self.image_shape)}

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
                mean=float(values["mean"]),
                std=float(values["std"]),
            )
            sizes = (*info.image_shape, len(info.classes))
            if min(sizes) < 1 or max(sizes) > MAX_SIZE or not info.std > 0:
                raise ValueError(f"image_shape, classes or std is out of range: {sizes}")
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"these are not the facts of a dataset: {error}") from error
        return info


FASHION_MNIST = DatasetInfo(
    name="Fashion-MNIST",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    image_shape=(1, 28, 28),
    mean=0.2860,  # of the 60,000 training images; 0.1307 and 0.3081 are MNIST's
    std=0.3530,
)
"""Source: https://github.com/zalandoresearch/fashion-mnist"""
