"""Predictions for images that a network hasn't been trained on: k trainings, each without one part of the images."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmnist.config.build import Training
from fmnist.data.datasets.base import Split
from fmnist.data.info import DatasetInfo
from fmnist.evaluation.inspection import features
from fmnist.evaluation.unfamiliar import neighbour_distances
from fmnist.runs import checkpoints
from fmnist.training.callbacks import TrainingInterrupted
from fmnist.training.fit import fit, interruption, prepare_data
from fmnist.training.train import count_images

log = logging.getLogger(__name__)

NEIGHBOURS = 10


class Predictions(NamedTuple):
    """What networks say about the N images of a split on which they weren't trained."""

    probabilities: Tensor
    """Of the classes (N, K), float64."""
    distance: Tensor
    """To the ten nearest training images (N); see `neighbour_distances`."""


class Judged(NamedTuple):
    """What one network says about some images."""

    features: Tensor
    """(N, F)."""
    probabilities: Tensor
    """(N, K), float64."""


def assign_folds(labels: Tensor, folds: int, seed: int, classes: Sequence[str]) -> Tensor:
    """Return the fold (N) of each image, from 0 on; of each class all folds have the same number, or one more.

    Raises:
        ValueError: if a class has fewer images than there are folds.
    """
    generator = torch.Generator().manual_seed(seed)
    assigned = torch.zeros_like(labels)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < folds:
            raise ValueError(f"folds={folds}: must be at most {len(members)}, the training images of {classes[label]}")
        order = torch.randperm(len(members), generator=generator)
        assigned[members[order]] = (torch.arange(len(members)) + label) % folds
    return assigned


def cross_validate(
    splits: Mapping[str, Split],
    folds: Tensor,
    make_training: Callable[[Path], Training],
) -> dict[str, Predictions]:
    """Return the predictions for "train", each image by the network that hasn't seen it, and "test", by all networks.

    For the test images both values are means over the networks.

    Args:
        splits: "train" and "test".
        folds: fold of each training image (N), from 0 on.
        make_training: makes a new training whose files go to a folder; its images are replaced here.

    Raises:
        KeyboardInterrupt: if the user pressed Ctrl-C.
        TrainingDiverged: if a loss is no longer finite.
    """
    (images, labels), (test_images, _) = splits["train"], splits["test"]
    count = int(folds.max()) + 1
    held_out: list[tuple[Tensor, Predictions]] = []
    tested: list[Predictions] = []
    for fold in range(count):
        kept = folds != fold
        name = f"fold {fold + 1} of {count}"
        network, dataset, device = train_fold(name, (images[kept], labels[kept]), splits["test"], make_training)
        known = judge(network, dataset, device, images[kept]).features
        held_out.append((~kept, predictions(judge(network, dataset, device, images[~kept]), known)))
        tested.append(predictions(judge(network, dataset, device, test_images), known))
    merged = Predictions(torch.zeros(len(labels), tested[0].probabilities.shape[1]).double(), torch.zeros(len(labels)))
    for mask, found in held_out:
        for whole, part in zip(merged, found, strict=True):
            whole[mask] = part
    return {
        "train": merged,
        "test": Predictions(*(torch.stack(values).mean(dim=0) for values in zip(*tested, strict=True))),
    }


def train_fold(
    name: str, train: Split, test: Split, make_training: Callable[[Path], Training]
) -> tuple[nn.Module, DatasetInfo, torch.device]:
    """Return a network trained on some of the images, the dataset as it normalises it, and the device."""
    with tempfile.TemporaryDirectory() as folder:
        training = make_training(Path(folder))
        datamodule = training.datamodule
        none = train[0][:0], train[1][:0]
        datamodule.splits = {"train": train, "val": none, "test": test}
        datamodule.hashes = {"fold": "in memory"}  # so that the files aren't read again
        prepare_data(training)
        log.info("%s: %s images to train on", name, count_images(training, "train"))
        try:
            fit(training, None)
        except (TrainingInterrupted, KeyboardInterrupt, SystemExit) as signal:  # Lightning turns Ctrl-C into SystemExit
            raise interruption(signal) from None
        chosen = training.run.chosen_checkpoint
        if chosen.is_file():  # averaged weights are in it alone
            checkpoints.restore_network(training.classifier.network, checkpoints.load(chosen))
    device = training.trainer.strategy.root_device
    return training.classifier.network.float().to(device), datamodule.dataset, device


def judge(network: nn.Module, dataset: DatasetInfo, device: torch.device, images: Tensor) -> Judged:
    """Return the last layer's input and the probabilities of images (N, C, H, W), uint8."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in images.split(1000):
            yield features(network, dataset.normalise(batch.to(device)))

    found, logits = zip(*batches(), strict=True)
    return Judged(torch.cat(found), torch.cat(logits).double().softmax(dim=1))


def predictions(judged: Judged, known: Tensor) -> Predictions:
    """Return the predictions for images, given the features (M, F) of those that the network was trained on."""
    return Predictions(judged.probabilities, neighbour_distances(judged.features, known, NEIGHBOURS))
