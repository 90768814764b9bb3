"""Test images to pick from."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

SAMPLES = 20


class Sample(NamedTuple):
    """An image of the dataset."""

    pixels: Tensor
    """uint8, (C, H, W)."""
    label: str
    """Its class."""


def pick_samples(images: Tensor, labels: Tensor, classes: Sequence[str], most: int = SAMPLES) -> list[Sample]:
    """Return the first images of each class, the same number of each; of the first `most` classes if there are more.

    Args:
        images: uint8, (N, C, H, W).
        labels: (N).
        classes: names of the K classes.
        most: number of images.
    """
    each = max(1, most // len(classes))
    found = []
    for label, name in enumerate(classes[:most]):
        places = (labels == label).nonzero().flatten()[:each]
        found += [Sample(images[place].clone(), name) for place in places.tolist()]  # not a view that keeps all of them
    return found
