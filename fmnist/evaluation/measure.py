"""Measuring a network on one split: the same code before training, after it, and at any later time."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.evaluation.tta import average_predictions
from fmnist.plotting.tables import class_table
from fmnist.training.classifier import Classifier
from fmnist.training.metric_names import metric_names
from fmnist.training.metrics import ClassificationMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Predictions on the N images of a split, and their metrics."""

    split: str
    """"val" or "test"."""
    classes: Sequence[str]
    """Names of the K classes."""
    loss: float
    accuracy: float
    accuracy_per_class: Sequence[float]
    """K values; NaN for a class without images."""
    confusion: Tensor
    """Counts (K true, K predicted)."""
    logits: Tensor
    """(N, K), in the order of the images."""

    @classmethod
    def from_metrics(
        cls, split: str, classes: Sequence[str], metrics: Mapping[str, Tensor], logits: Tensor
    ) -> "Evaluation":
        """Return the evaluation of the tensors that `ClassificationMetrics.compute` returns."""
        return cls(
            split,
            classes,
            metrics["loss"].item(),
            metrics["accuracy"].item(),
            metrics["accuracy_per_class"].tolist(),
            metrics["confusion"],
            logits,
        )

    def scalars(self) -> dict[str, float]:
        """Return the metrics by the names of `metric_names`."""
        values = [self.loss, self.accuracy, *self.accuracy_per_class]
        return dict(zip(metric_names(self.split, self.classes), values, strict=True))

    def for_json(self) -> dict[str, float | dict[str, float | None]]:
        """Return the metrics as metrics.json holds them: the classes in one entry, None in place of NaN."""
        per_class = zip(self.classes, self.accuracy_per_class, strict=True)
        return {
            f"{self.split}/loss": self.loss,
            f"{self.split}/accuracy": self.accuracy,
            f"{self.split}/accuracy_per_class": {
                name: None if math.isnan(value) else value for name, value in per_class
            },
        }


class _CollectLogits(Callback):
    """Collects the outputs of the evaluation steps, which are logits (N, K)."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        self.batches.append(outputs.float().cpu())

    on_test_batch_end = on_validation_batch_end


def measure(trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule, split: str) -> Evaluation:
    """Return the evaluation of the current weights on a split.

    Args:
        split: "val" or "test".
    """
    run_loop = {"val": trainer.validate, "test": trainer.test}[split]
    collected = _CollectLogits()
    trainer.callbacks.append(collected)  # type: ignore[attr-defined]
    run_loop(classifier, datamodule=datamodule, verbose=False)
    trainer.callbacks.remove(collected)  # type: ignore[attr-defined]
    metrics = classifier.metrics(split).compute()
    return Evaluation.from_metrics(split, classifier.classes, metrics, torch.cat(collected.batches))


def ensemble(evaluations: Sequence[Evaluation], losses: Sequence[nn.Module], labels: Tensor) -> Evaluation:
    """Return the evaluation of several networks as one, which predicts the mean of their probabilities.

    Args:
        evaluations: one per network, on the same images.
        losses: their loss functions, whose mean is the loss.
        labels: labels of the split, of which `trainer.limit_test_batches` may have left out the last.

    Raises:
        ValueError: if the evaluations are of different numbers of images.
    """
    split, classes = evaluations[0].split, evaluations[0].classes
    if len(counts := sorted({len(evaluation.logits) for evaluation in evaluations})) > 1:
        raise ValueError(
            f"run: the runs were evaluated on {counts[0]:,} to {counts[-1]:,} images, because their "
            f"trainer.limit_{split}_batches differ; an ensemble needs the same images"
        )
    logits = average_predictions([evaluation.logits for evaluation in evaluations])
    labels = labels[: len(logits)].cpu()
    metrics = ClassificationMetrics(len(classes))
    metrics.update(torch.stack([loss.eval()(logits, labels) for loss in losses]).mean(), logits, labels)
    return Evaluation.from_metrics(split, classes, metrics.compute(), logits)


def log_evaluation(subject: str, evaluation: Evaluation, *notes: str) -> None:
    """Log a table of the classes, then loss and accuracy.

    Args:
        subject: what was measured.
        evaluation: the result.
        notes: added in brackets to the last line.
    """
    split, classes = evaluation.split, evaluation.classes
    log.info("%s of %s:\n%s", split, subject, class_table(evaluation.confusion, classes))
    note = f" ({'; '.join(notes)})" if notes else ""
    log.info("%s: loss %.4f, accuracy %.2f%%%s", split, evaluation.loss, 100 * evaluation.accuracy, note)
