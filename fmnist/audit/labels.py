"""Probable label errors, and what the accuracy is without them."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from fmnist.evaluation.interval import wilson


class Accuracy(NamedTuple):
    """The accuracy on some images, with its 95 % interval (Wilson)."""

    correct: int
    total: int
    low: float
    high: float


def check_package() -> None:
    """Raise a ValueError if cleanlab is missing."""
    if find_spec("cleanlab") is None:
        raise ValueError('audit_data: cleanlab is missing: `make extras` or pip install "fmnist[audit]" installs it')


def label_errors(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return the indices of images whose labels are probably wrong, the most doubtful first.

    Confident learning: an image is doubtful if its probability of another class is as large as that class's usual
    one, and its probability of its label is among the smallest, as many as that estimates to be wrong.
    Source: Northcutt, Jiang and Chuang, Confident Learning, https://arxiv.org/abs/1911.00068

    Args:
        labels: (N).
        probabilities: of the classes (N, K), by networks that weren't trained on the image.
    """
    from cleanlab.filter import find_label_issues

    present = labels.unique()  # cleanlab warns of a class without images
    columns = probabilities[:, present]
    columns = columns / columns.sum(dim=1, keepdim=True)
    if len(present) < 2:
        return torch.zeros(0, dtype=torch.long)
    found = find_label_issues(
        torch.searchsorted(present, labels).numpy(),
        columns.numpy(),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return torch.as_tensor(found, dtype=torch.long)


def accuracy(predicted: Tensor, labels: Tensor) -> Accuracy | None:
    """Return the accuracy of predicted classes (N) of the labels (N); None where there are none."""
    correct, total = int((predicted == labels).sum()), len(labels)
    if not total:
        return None
    return Accuracy(correct, total, *wilson(correct, total))


def frequent_pairs(given: Sequence[str], suggested: Sequence[str], most: int) -> list[tuple[str, str, int]]:
    """Return label, suggestion and number of images of the most frequent pairs, in falling order."""
    counts = Counter(zip(given, suggested, strict=True))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(label, suggestion, count) for (label, suggestion), count in ordered[:most]]
