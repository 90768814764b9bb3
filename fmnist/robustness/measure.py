"""Measuring networks on corrupted test images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning.pytorch import Trainer
from torch import Tensor

from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import DatasetInfo
from fmnist.evaluation.calibration import Calibrator
from fmnist.evaluation.measure import Evaluation, measure
from fmnist.evaluation.robustness import Condition, Robustness, Scores
from fmnist.robustness.corruptions import corrupt
from fmnist.training.classifier import Classifier
from fmnist.training.metrics import calibration


@dataclass(frozen=True)
class Network:
    """A trained network, and what it is measured with.

    Args:
        name: the run folder or checkpoint, as it is shown.
        checkpoint: SHA-256 of the file.
        trainer: evaluates it.
        dataset: by which images are normalised for it.
        calibrator: of its probabilities; None if there is none.
    """

    name: str
    checkpoint: str
    trainer: Trainer
    classifier: Classifier
    dataset: DatasetInfo
    calibrator: Calibrator | None


@dataclass(frozen=True)
class Result:
    """The robustness of several networks on the same images.

    Args:
        networks: at least one; all have the same images, seed and conditions.
        pictures: the first image (C, H, W), uint8, as it is by the key None, and under each condition.
    """

    networks: Sequence[Robustness]
    pictures: Mapping[Condition | None, Tensor]

    @property
    def first(self) -> Robustness:
        """The first network."""
        return self.networks[0]


def scores_of(evaluation: Evaluation, labels: Tensor, calibrator: Calibrator | None) -> Scores:
    """Return the scores of an evaluation; labels are (N), and without a calibrator the softmax counts."""
    logits = evaluation.logits
    if not logits.isfinite().all():
        return Scores(evaluation.accuracy, None, None)
    probabilities = calibrator.probabilities(logits) if calibrator else logits.softmax(dim=1)
    error = calibration(probabilities, labels).error
    return Scores(evaluation.accuracy, error, probabilities.amax(dim=1).double().mean().item())


def measure_conditions(
    networks: Sequence[Network], datamodule: ImageDataModule, conditions: Sequence[Condition | None], seed: int
) -> Iterator[tuple[Condition | None, Tensor, list[Scores]]]:
    """Yield each condition, its first image (C, H, W), uint8, and the scores of each network under it.

    The corrupted images are made once for all networks.

    Args:
        datamodule: is set up; its test images are replaced meanwhile.
        conditions: None are the images as they are.
        seed: of the corruptions.
    """
    original = images, labels = datamodule.splits["test"]
    try:
        for condition in conditions:
            shown = images if condition is None else corrupt(images, *condition, seed)
            datamodule.splits["test"] = shown, labels
            scores = []
            for network in networks:
                datamodule.dataset = network.dataset
                evaluation = measure(network.trainer, network.classifier, datamodule, "test")
                scores.append(scores_of(evaluation, labels, network.calibrator))
            yield condition, shown[0], scores
    finally:
        datamodule.splits["test"] = original
