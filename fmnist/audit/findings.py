"""What an audit has found, as rows of tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fmnist.audit.duplicates import Duplicates
from fmnist.audit.folds import Predictions
from fmnist.audit.labels import Accuracy, accuracy
from fmnist.data.info import DatasetInfo


class Images(NamedTuple):
    """The images of a split (N)."""

    pixels: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor
    """(N)."""
    places: Sequence[tuple[str, int]]
    """Split and index of each in the dataset itself."""


@dataclass(frozen=True)
class Row:
    """A line of a table. Its fields are the columns."""

    split: str
    index: int
    label: str
    suggestion: str
    score: float


@dataclass(frozen=True)
class DuplicateRow:
    """A line of the table of duplicates: an image, and the earlier image that it is a copy of."""

    split: str
    index: int
    label: str
    suggestion: str
    """The label of the other image."""
    score: float
    """Correlation of the pixels."""
    kind: str
    """exact or near."""
    copy_split: str
    copy_index: int


@dataclass(frozen=True)
class Findings:
    """What an audit has found.

    Args:
        dataset: its facts.
        images: "train" and "test".
        predictions: for these images, by networks that weren't trained on them.
        errors: indices of the images of each split whose labels are probably wrong, the most doubtful first.
        duplicates: among the test images followed by the training images.
        most_outliers: number of images of each split that count as outliers.
    """

    dataset: DatasetInfo
    images: Mapping[str, Images]
    predictions: Mapping[str, Predictions]
    errors: Mapping[str, Tensor]
    duplicates: Duplicates
    most_outliers: int

    def row(self, split: str, index: int, score: float) -> Row:
        """Return the line of an image, which suggests the most likely class."""
        images, predictions = self.images[split], self.predictions[split]
        own_split, own_index = images.places[index]
        label, suggestion = int(images.labels[index]), int(predictions.probabilities[index].argmax())
        return Row(own_split, own_index, self.dataset.classes[label], self.dataset.classes[suggestion], round(score, 6))

    def label_rows(self, split: str) -> list[Row]:
        """Return the probable label errors of a split; the score is the probability of the label."""
        images, predictions = self.images[split], self.predictions[split]
        return [
            self.row(split, index, float(predictions.probabilities[index, images.labels[index]]))
            for index in self.errors[split].tolist()
        ]

    def outliers(self, split: str) -> list[int]:
        """Return the indices of the images of a split that are farthest from their neighbours, in falling order."""
        order = self.predictions[split].distance.argsort(descending=True, stable=True)
        return list(map(int, order[: self.most_outliers].tolist()))

    def outlier_rows(self, split: str) -> list[Row]:
        """Return the outliers of a split; the score is the distance from the nearest training images."""
        return [
            self.row(split, index, float(self.predictions[split].distance[index])) for index in self.outliers(split)
        ]

    def located(self, place: int) -> tuple[str, int]:
        """Return split and index, in `images`, of a place among the test images followed by the training images."""
        first = len(self.images["test"].labels)
        return ("test", place) if place < first else ("train", place - first)

    def duplicate_rows(self) -> list[DuplicateRow]:
        """Return the images that are copies of an earlier one, those of test images first."""
        rows = []
        found = self.duplicates
        columns = (found.index, found.copy_of, found.correlation, found.exact)
        for index, copy, correlation, exact in zip(*(column.tolist() for column in columns), strict=True):
            (split, own), (copy_split, copy_own) = self.located(index), self.located(copy)
            images, others = self.images[split], self.images[copy_split]
            rows.append(
                DuplicateRow(
                    *images.places[own],
                    self.dataset.classes[int(images.labels[own])],
                    self.dataset.classes[int(others.labels[copy_own])],
                    round(correlation, 6),
                    "exact" if exact else "near",
                    *others.places[copy_own],
                )
            )
        return rows

    def duplicate_pixels(self, row: int) -> tuple[Tensor, Tensor]:
        """Return the pixels (C, H, W) of a line of the duplicates, and of the image that it is a copy of."""
        places = (int(self.duplicates.index[row]), int(self.duplicates.copy_of[row]))
        first, second = (self.images[split].pixels[index] for split, index in map(self.located, places))
        return first, second

    def accuracies(self) -> dict[str, Accuracy | None]:
        """Return the accuracy on the test images: on all of them, and on those about which nothing was found."""
        test, predicted = self.images["test"], self.predictions["test"].probabilities.argmax(dim=1)
        across = self.duplicates.across
        kept = {
            "all": torch.ones(len(test.labels), dtype=torch.bool),
            "without probable label errors": _all_but(self.errors["test"], len(test.labels)),
            "without copies of training images": _all_but(across[across < len(test.labels)], len(test.labels)),
        }
        return {name: accuracy(predicted[mask], test.labels[mask]) for name, mask in kept.items()}


def _all_but(indices: Tensor, count: int) -> Tensor:
    """Return a mask (N) that is false at some indices."""
    mask = torch.ones(count, dtype=torch.bool)
    mask[indices] = False
    return mask
