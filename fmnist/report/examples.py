"""Predictions of a split, those of them that a page shows, and pixels as pictures of a page."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmnist.plotting.tiles import data_url


@dataclass(frozen=True)
class Picture:
    """One image of a page."""

    url: str
    alt: str
    label: str = ""
    """Below it."""


@dataclass(frozen=True)
class Example:
    """The prediction for one image."""

    pictures: Sequence[Picture]
    predicted: str
    true: str
    confidence: float

    @property
    def right(self) -> bool:
        return self.predicted == self.true


@dataclass(frozen=True)
class Predictions:
    """The predictions for the images of a split."""

    images: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor
    """True classes (N)."""
    predicted: Tensor
    """Classes (N)."""
    confidence: Tensor
    """Probability of the predicted class (N)."""
    classes: Sequence[str]

    @property
    def right(self) -> Tensor:
        return self.labels == self.predicted

    def most_confident(self, candidates: Tensor, most: int) -> list[int]:
        """Return those of the candidates (N), a mask, with the highest confidence, in falling order."""
        places = candidates.nonzero().flatten()
        order = self.confidence[places].argsort(descending=True, stable=True)
        return list(map(int, places[order[:most]].tolist()))

    def examples(self, chosen: Sequence[int]) -> list[Example]:
        """Return the predictions for some of the images."""
        found = []
        for index in chosen:
            true, predicted = self.classes[int(self.labels[index])], self.classes[int(self.predicted[index])]
            picture = Picture(data_url(self.images[index]), f"{true}, image {index}")
            found.append(Example([picture], predicted, true, float(self.confidence[index])))
        return found


def sample(candidates: Tensor, most: int) -> list[int]:
    """Return some of the candidates (N), a mask, drawn with a fixed seed, in rising order."""
    places = candidates.nonzero().flatten()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    return sorted(places[order[:most]].tolist())
