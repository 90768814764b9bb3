"""What networks take for something else, and which images have a twin among the training images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmnist.data.info import CLASSES

AT_ONCE = 1000
"""Images that are compared with all training images at the same time: 240 MB."""


@dataclass(frozen=True)
class Miss:
    """A test image that a network, or several of those that were asked, took for something else."""

    image: int
    """Of the test images, from 0 on."""
    label: str
    networks: int
    """How many were asked."""
    missed: int
    """How many of them were wrong."""
    answer: str
    """The wrong class that the most of them gave."""
    gave: int
    """How many gave it."""
    answer_probability: float
    """Mean over all networks."""
    label_probability: float
    nearest: int
    """Of the training images."""
    nearest_label: str
    distance: float
    """To that one: root of the mean squared difference of the pixels, black 0 and white 1."""


@dataclass(frozen=True)
class Twin:
    """An image, and the training image that it is nearest to."""

    split: str
    """test, or train: then the nearest is another one."""
    image: int
    label: str
    nearest: int
    nearest_label: str
    distance: float
    """As that of a `Miss`."""


def find_misses(logits: Sequence[Tensor], labels: Tensor, twins: Sequence[Twin]) -> list[Miss]:
    """The images that at least one network takes for something else, in their order.

    Args:
        logits: (N, K) of each network.
        labels: of the images (N).
        twins: the nearest training image of each image.
    """
    probabilities = torch.stack([answers.softmax(dim=1) for answers in logits]).mean(dim=0)
    answers = torch.stack([answers.argmax(dim=1) for answers in logits], dim=1)  # (N, networks)
    missed = (answers != labels[:, None]).sum(dim=1)
    misses = []
    for image in missed.nonzero()[:, 0].tolist():
        label = int(labels[image])
        votes = torch.bincount(answers[image], minlength=len(CLASSES))
        votes[label] = 0
        # Of classes that as many gave, the one that is more likely to all.
        answer = max(range(len(votes)), key=lambda k: (int(votes[k]), float(probabilities[image, k])))
        misses.append(
            Miss(
                image=image,
                label=CLASSES[label],
                networks=len(logits),
                missed=int(missed[image]),
                answer=CLASSES[answer],
                gave=int(votes[answer]),
                answer_probability=float(probabilities[image, answer]),
                label_probability=float(probabilities[image, label]),
                nearest=twins[image].nearest,
                nearest_label=twins[image].nearest_label,
                distance=twins[image].distance,
            )
        )
    return misses


def find_twins(split: str, images: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> list[Twin]:
    """The nearest training image of each image.

    Args:
        split: "test", or "train": then the images are the others, and none is its own twin.
        images: uint8 (N, C, H, W).
        labels: of these (N).
        others: the training images, likewise (M, C, H, W).
        other_labels: of those (M).
    """
    distances, places = nearest(images, others, apart=split == "train")
    found = zip(labels.tolist(), places.tolist(), other_labels[places].tolist(), distances.tolist(), strict=True)
    return [
        Twin(split, image, CLASSES[label], place, CLASSES[other], distance)
        for image, (label, place, other, distance) in enumerate(found)
    ]


def nearest(images: Tensor, others: Tensor, apart: bool = False) -> tuple[Tensor, Tensor]:
    """Of each image the distance to the nearest of the others (N), as that of a `Miss`, and its place (N).

    Args:
        images: uint8 (N, C, H, W).
        others: likewise (M, C, H, W).
        apart: whether both are the same, and none is near to itself.
    """
    ours, theirs = images.flatten(1).float() / 255, others.flatten(1).float() / 255
    lengths = theirs.square().sum(dim=1)
    places = []
    for first, part in zip(range(0, len(ours), AT_ONCE), ours.split(AT_ONCE), strict=True):
        distances = lengths - 2 * part @ theirs.T
        if apart:
            distances.diagonal(first).fill_(torch.inf)
        places.append(distances.argmin(dim=1))
    place = torch.cat(places)
    # Only the order is of the fast sums, in which small distances would be lost.
    return (ours - theirs[place]).square().mean(dim=1).sqrt(), place
