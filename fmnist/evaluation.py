"""Measuring a network on one split: the same code before training, after it, and at any later time."""

import logging
import math

from lightning.pytorch import Trainer
from torch import Tensor

from fmnist.classes import CLASSES
from fmnist.classifier import Classifier
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.metrics import metric_names
from fmnist.reporting.tables import class_table

log = logging.getLogger(__name__)

Result = dict[str, Tensor]
"""Loss (), accuracy (), accuracy_per_class (K), confusion (K true, K predicted)."""


def measure(trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule, split: str) -> Result:
    """The metrics of the network as it is on the images of "val" or "test"."""
    loop = {"val": trainer.validate, "test": trainer.test}[split]
    loop(classifier, datamodule=datamodule, verbose=False)
    result: Result = classifier.metrics(split).compute()
    return result


def show(split: str, subject: str, result: Result) -> None:
    """Logs the result of a checkpoint on a split: a table of the classes, then the whole."""
    log.info("%s of %s:\n%s", split, subject, class_table(result["confusion"]))
    log.info("%s: loss %.4f, accuracy %.2f%%", split, result["loss"].item(), 100 * result["accuracy"].item())


def scalars(split: str, result: Result) -> dict[str, float]:
    """A result by the names of `fmnist.metrics.metric_names`; NaN is the accuracy of a class without images."""
    values = [result["loss"].item(), result["accuracy"].item(), *result["accuracy_per_class"].tolist()]
    return dict(zip(metric_names(split), values, strict=True))


def grouped(split: str, result: Result) -> dict[str, float | dict[str, float | None]]:
    """The same as metrics.json holds it: the classes under one name, None instead of NaN."""
    per_class = zip(CLASSES, result["accuracy_per_class"].tolist(), strict=True)
    return {
        f"{split}/loss": result["loss"].item(),
        f"{split}/accuracy": result["accuracy"].item(),
        f"{split}/accuracy_per_class": {name: None if math.isnan(value) else value for name, value in per_class},
    }
