"""Losses: modules that map logits (N, K) and labels (N) or soft labels (N, K) to the mean over the batch ()."""

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional


class CrossEntropy(nn.Module):
    """Cross-entropy of the softmax of the logits.

    Args:
        label_smoothing: fraction of a label that is spread evenly over all classes, in training only. The loss on
            validation and test images is without it, so that runs can be compared.
            Source: Szegedy et al., Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567
    """

    def __init__(self, label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.label_smoothing if self.training else 0.0
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


class MeanSquaredError(nn.Module):
    """Mean squared difference of the probabilities (softmax of the logits) and the one-hot or soft labels.

    The mean is over images and classes, so the loss lies between 0 and 2 / K.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        probabilities = logits.softmax(dim=1)
        expected = labels if labels.is_floating_point() else functional.one_hot(labels, logits.shape[1])
        return functional.mse_loss(probabilities, expected.to(probabilities.dtype))
