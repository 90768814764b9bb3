"""How good the predictions are: loss, accuracy, accuracy per class."""

from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from fmnist.classes import CLASSES

PHASES = ("train", "val", "test")


def metric_names(phase: str) -> list[str]:
    """The scalars that a phase logs, by name: val/loss, val/accuracy, val/accuracy_per_class/Trouser, ..."""
    return [f"{phase}/loss", f"{phase}/accuracy", *(f"{phase}/accuracy_per_class/{name}" for name in CLASSES)]


def direction(metric: str) -> str:
    """'min' for a loss, 'max' for everything else: which way is better."""
    return "min" if metric.endswith("loss") else "max"


class ClassificationMetrics(nn.Module):
    """Mean loss and confusion matrix of one phase, summed in place and reduced once, when they are asked for.

    Accuracy and accuracy per class are read off the confusion matrix, so that a batch is looked at once.
    """

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        # In checkpoints, so that an epoch that was cut in two still counts as one.
        self.loss.persistent(True)
        self.confusion.persistent(True)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: its mean loss (), its logits (N, K) and its labels (N)."""
        # Once for each image: torchmetrics 1.9 drops weights where NaNs aren't looked for (its issue 3434).
        self.loss.update(loss.expand(len(labels)))
        self.confusion.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Loss (), accuracy (), accuracy_per_class (K) and confusion (K true, K predicted), as counts; on the CPU.

        The accuracy of a class without images is NaN.
        """
        confusion = self.confusion.compute().cpu().double()
        correct, total = confusion.diagonal(), confusion.sum(dim=1)
        return {
            "loss": self.loss.compute().cpu(),
            "accuracy": correct.sum() / total.sum(),
            "accuracy_per_class": correct / total,
            "confusion": confusion.long(),
        }

    def so_far(self) -> tuple[float, float]:
        """Mean loss and accuracy of the images that this process has seen, cheaply: for a progress bar."""
        images = max(self.confusion.confmat.sum().item(), 1)
        return (self.loss.mean_value.item() / images, self.confusion.confmat.trace().item() / images)

    def reset(self) -> None:
        """Forgets all batches."""
        self.loss.reset()
        self.confusion.reset()
