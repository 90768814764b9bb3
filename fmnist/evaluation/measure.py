"""Evaluation of a network on one split: the same code before a training, after it, and at any later time."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fmnist.data.datamodule import ImageDataModule
from fmnist.evaluation.tta import average_predictions
from fmnist.plotting.tables import class_table
from fmnist.training.classifier import Classifier
from fmnist.training.metric_names import metric_names
from fmnist.training.metrics import ClassificationMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Predictions for the N images of a split, and their metrics.

    Args:
        split: "val" or "test".
        classes: names of the K classes.
        loss: mean over the images.
        accuracy: from 0 to 1.
        accuracy_per_class: K values; NaN for a class without images.
        confusion: counts (K true, K predicted).
        logits: (N, K), in the order of the images.
        accuracy_top5: fraction of the images whose class is among the five most likely ones; None for few classes.
    """

    split: str
    classes: Sequence[str]
    loss: float
    accuracy: float
    accuracy_per_class: Sequence[float]
    confusion: Tensor
    logits: Tensor
    accuracy_top5: float | None = None

    def scalars(self) -> dict[str, float]:
        """Return the metrics by the names of `metric_names`."""
        top5 = [] if self.accuracy_top5 is None else [self.accuracy_top5]
        values = [self.loss, self.accuracy, *top5, *self.accuracy_per_class]
        return dict(zip(metric_names(self.split, self.classes), values, strict=False))  # many classes have no names

    def for_json(self) -> dict[str, float | dict[str, float | None]]:
        """Return the metrics as metrics.json holds them: the classes in one entry, None in place of NaN."""
        values = [None if math.isnan(value) else value for value in self.accuracy_per_class]
        return {
            f"{self.split}/loss": self.loss,
            f"{self.split}/accuracy": self.accuracy,
            **({} if self.accuracy_top5 is None else {f"{self.split}/accuracy_top5": self.accuracy_top5}),
            f"{self.split}/accuracy_per_class": dict(zip(self.classes, values, strict=True)),
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


def measure(trainer: Trainer, classifier: Classifier, datamodule: ImageDataModule, split: str) -> Evaluation:
    """Return the evaluation of the current weights on "val" or "test"."""
    run_loop = {"val": trainer.validate, "test": trainer.test}[split]
    collected = _CollectLogits()
    trainer.callbacks.append(collected)  # type: ignore[attr-defined]
    run_loop(classifier, datamodule=datamodule, verbose=False)
    trainer.callbacks.remove(collected)  # type: ignore[attr-defined]
    return _evaluation(split, classifier.classes, classifier.metrics(split), torch.cat(collected.batches))


def ensemble(evaluations: Sequence[Evaluation], losses: Sequence[nn.Module], labels: Tensor) -> Evaluation:
    """Return the evaluation of several networks as one, which predicts the mean of their probabilities.

    Args:
        evaluations: one per network, on the same images.
        losses: their loss functions, whose mean is the loss.
        labels: labels of the split; those after the last evaluated image are ignored.

    Raises:
        ValueError: if the evaluations are of different numbers of images.
    """
    split, classes = evaluations[0].split, evaluations[0].classes
    if len({len(evaluation.logits) for evaluation in evaluations}) > 1:
        raise ValueError(f"run: trainer.limit_{split}_batches differs; an ensemble needs the same number of images")
    logits = average_predictions([evaluation.logits for evaluation in evaluations])
    labels = labels[: len(logits)].cpu()
    metrics = ClassificationMetrics(len(classes))
    metrics.update(torch.stack([loss.eval()(logits, labels) for loss in losses]).mean(), logits, labels)
    return _evaluation(split, classes, metrics, logits)


def _evaluation(split: str, classes: Sequence[str], metrics: ClassificationMetrics, logits: Tensor) -> Evaluation:
    values = metrics.compute()
    loss, accuracy = values["loss"].item(), values["accuracy"].item()
    top5 = values["accuracy_top5"].item() if "accuracy_top5" in values else None
    return Evaluation(
        split, classes, loss, accuracy, values["accuracy_per_class"].tolist(), values["confusion"], logits, top5
    )


def log_evaluation(subject: str, evaluation: Evaluation, *notes: str) -> None:
    """Log a table of the classes, then loss and accuracy, with notes in brackets."""
    split = evaluation.split
    log.info("%s of %s:\n%s", split, subject, class_table(evaluation.confusion, evaluation.classes))
    note = f" ({'; '.join(notes)})" if notes else ""
    top5 = "" if evaluation.accuracy_top5 is None else f", top-5 accuracy {100 * evaluation.accuracy_top5:.2f}%"
    log.info("%s: loss %.4f, accuracy %.2f%%%s%s", split, evaluation.loss, 100 * evaluation.accuracy, top5, note)
