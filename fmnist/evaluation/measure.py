"""Measuring a network on one split: the same code before training, after it, and at any later time."""

import logging
import math
from collections.abc import Sequence
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

Result = dict[str, Tensor]
"""Loss (), accuracy (), accuracy_per_class (K), confusion (K true, K predicted), logits (N, K) in the images' order."""


class _Logits(Callback):
    """Keeps what the network answers."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        self.batches.append(outputs.float().cpu())

    on_test_batch_end = on_validation_batch_end


def measure(trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule, split: str) -> Result:
    """The metrics of the network as it is on the images of "val" or "test"."""
    loop = {"val": trainer.validate, "test": trainer.test}[split]
    kept = _Logits()
    trainer.callbacks.append(kept)  # type: ignore[attr-defined]
    loop(classifier, datamodule=datamodule, verbose=False)
    trainer.callbacks.remove(kept)  # type: ignore[attr-defined]
    result: Result = classifier.metrics(split).compute()
    return result | {"logits": torch.cat(kept.batches)}


def together(results: Sequence[Result], losses: Sequence[nn.Module], labels: Tensor) -> Result:
    """What several networks that were measured on the same images are worth together: the mean of their probabilities.

    Args:
        results: one for each network.
        losses: those of the networks, whose mean is the loss.
        labels: (N) of the images, of which the first ones may have been measured alone.
    """
    logits = average_predictions([result["logits"] for result in results])
    labels = labels[: len(logits)].cpu()
    metrics = ClassificationMetrics(logits.shape[1])
    metrics.update(torch.stack([loss.eval()(logits, labels) for loss in losses]).mean(), logits, labels)
    found: Result = metrics.compute()
    return found | {"logits": logits}


def show(split: str, subject: str, result: Result, classes: Sequence[str], *how: str) -> None:
    """Logs the result of a checkpoint on a split: a table of the classes, then the whole.

    Args:
        split: "val" or "test".
        subject: what was measured.
        result: what came out.
        classes: names of the K classes.
        how: what is to be known about it besides.
    """
    log.info("%s of %s:\n%s", split, subject, class_table(result["confusion"], classes))
    note = f" ({'; '.join(how)})" if how else ""
    log.info("%s: loss %.4f, accuracy %.2f%%%s", split, result["loss"].item(), 100 * result["accuracy"].item(), note)


def scalars(split: str, result: Result, classes: Sequence[str]) -> dict[str, float]:
    """A result by its metric names; NaN is the accuracy of a class without images."""
    values = [result["loss"].item(), result["accuracy"].item(), *result["accuracy_per_class"].tolist()]
    return dict(zip(metric_names(split, classes), values, strict=True))


def grouped(split: str, result: Result, classes: Sequence[str]) -> dict[str, float | dict[str, float | None]]:
    """The same as metrics.json holds it: the classes under one name, None instead of NaN."""
    per_class = zip(classes, result["accuracy_per_class"].tolist(), strict=True)
    return {
        f"{split}/loss": result["loss"].item(),
        f"{split}/accuracy": result["accuracy"].item(),
        f"{split}/accuracy_per_class": {name: None if math.isnan(value) else value for name, value in per_class},
    }
