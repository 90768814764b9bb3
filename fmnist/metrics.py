"""How good the predictions are: loss, accuracy, accuracy per class."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.classification import multiclass_calibration_error

from fmnist.classes import CLASSES


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


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy agree, for B bins of equal width of the confidence from 0 to 1."""

    error: float
    """Expected calibration error: the mean distance of both over all images."""
    confidence: Tensor
    """Mean probability of the predicted class (B); NaN in an empty bin."""
    accuracy: Tensor
    """Share of right predictions (B); NaN in an empty bin."""
    count: Tensor
    """Images (B)."""


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Calibration:
    """Whether a network is right as often as it is sure to be.

    Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599

    Args:
        probabilities: (N, K).
        labels: (N).
        bins: B.
    """
    num_classes = probabilities.shape[1]
    error = multiclass_calibration_error(probabilities, labels, num_classes, n_bins=bins, norm="l1")
    confidence, predicted = probabilities.max(dim=1)
    # As torchmetrics has it: a bin holds its upper edge.
    edges = torch.linspace(0, 1, bins + 1)[1:-1]
    place = torch.bucketize(confidence, edges)
    count = place.bincount(minlength=bins)
    return Calibration(
        error.item(),
        place.bincount(confidence.double(), minlength=bins) / count,
        place.bincount((predicted == labels).double(), minlength=bins) / count,
        count,
    )
