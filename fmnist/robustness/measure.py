"""Measuring networks on corrupted test images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from lightning.pytorch import Trainer
from torch import Tensor

from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import DatasetInfo
from fmnist.evaluation.calibration import Calibrator
from fmnist.evaluation.measure import Evaluation, measure
from fmnist.robustness.corruptions import corrupt
from fmnist.training.classifier import Classifier
from fmnist.training.metrics import calibration

Condition = tuple[str, int]
"""Name and strength of a corruption."""


@dataclass(frozen=True)
class Scores:
    """What is measured on one set of images.

    Args:
        accuracy: from 0 to 1.
        calibration_error: expected calibration error of the probabilities, from 0 to 1; NaN if a logit isn't finite.
        confidence: mean probability of the predicted class; NaN if a logit isn't finite.
    """

    accuracy: float
    calibration_error: float
    confidence: float

    @classmethod
    def of(cls, evaluation: Evaluation, labels: Tensor, calibrator: Calibrator | None) -> "Scores":
        """Return the scores of an evaluation; labels are (N), and without a calibrator the softmax counts."""
        logits = evaluation.logits
        if not logits.isfinite().all():
            return cls(evaluation.accuracy, float("nan"), float("nan"))
        probabilities = calibrator.probabilities(logits) if calibrator else logits.softmax(dim=1)
        error = calibration(probabilities, labels).error
        return cls(evaluation.accuracy, error, probabilities.amax(dim=1).double().mean().item())

    @classmethod
    def mean(cls, scores: Sequence["Scores"]) -> "Scores":
        """Return the mean of each score."""
        return cls(
            fmean(each.accuracy for each in scores),
            fmean(each.calibration_error for each in scores),
            fmean(each.confidence for each in scores),
        )


@dataclass
class Network:
    """A trained network, and what is found about it.

    Args:
        name: the run folder or checkpoint, as it is shown.
        trainer: evaluates it.
        dataset: by which images are normalised for it.
        calibrator: of its probabilities; None if there is none.
    """

    name: str
    trainer: Trainer
    classifier: Classifier
    dataset: DatasetInfo
    calibrator: Calibrator | None
    clean: Scores = field(init=False)
    corrupted: dict[Condition, Scores] = field(default_factory=dict)

    def mean(self, corruption: str | None = None, strength: int | None = None) -> Scores:
        """Return the mean over the corrupted images: over all of them, or those of a corruption or a strength."""
        chosen = [
            scores
            for (name, level), scores in self.corrupted.items()
            if corruption in (None, name) and strength in (None, level)
        ]
        return Scores.mean(chosen)


@dataclass(frozen=True)
class Robustness:
    """The result for several networks on the same images.

    Args:
        networks: at least one.
        corruptions: names of those that were applied.
        strengths: of each of them.
        complete: whether these are all that there are; otherwise the means aren't comparable with others.
        seed: of the corruptions.
        count: number of test images.
        pictures: the first image (C, H, W), uint8, as it is by the key None, and under each condition.
    """

    networks: Sequence[Network]
    corruptions: Sequence[str]
    strengths: Sequence[int]
    complete: bool
    seed: int
    count: int
    pictures: Mapping[Condition | None, Tensor]


def measure_conditions(
    networks: Sequence[Network], datamodule: ImageDataModule, conditions: Sequence[Condition | None], seed: int
) -> Iterator[tuple[Condition | None, Tensor]]:
    """Measure networks under one condition after the other, and yield it with its first image (C, H, W), uint8.

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
            for network in networks:
                datamodule.dataset = network.dataset
                evaluation = measure(network.trainer, network.classifier, datamodule, "test")
                scores = Scores.of(evaluation, labels, network.calibrator)
                if condition is None:
                    network.clean = scores
                else:
                    network.corrupted[condition] = scores
            yield condition, shown[0]
    finally:
        datamodule.splits["test"] = original
