"""Measuring a network on one split: the same code before training, after it, and at any later time."""

from lightning.pytorch import Trainer
from torch import Tensor

from fmnist.classes import CLASSES
from fmnist.classifier import Classifier
from fmnist.data.datamodule import FashionMNISTDataModule

Result = dict[str, Tensor]
"""Loss (), accuracy (), accuracy_per_class (K), confusion (K true, K predicted)."""


def measure(trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule, split: str) -> Result:
    """The metrics of the network as it is on the images of "val" or "test"."""
    loop = {"val": trainer.validate, "test": trainer.test}[split]
    loop(classifier, datamodule=datamodule, verbose=False)
    result: Result = classifier.metrics(split).compute()
    return result


def plain(split: str, result: Result) -> dict[str, float | dict[str, float | None]]:
    """A result as plain numbers by name, as metrics.json holds them; None is the accuracy of a class without images."""
    per_class = zip(CLASSES, result["accuracy_per_class"].tolist(), strict=True)
    return {
        f"{split}/loss": result["loss"].item(),
        f"{split}/accuracy": result["accuracy"].item(),
        f"{split}/accuracy_per_class": {name: value if value == value else None for name, value in per_class},
    }
