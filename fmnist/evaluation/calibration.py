"""Probabilities that are right: temperature scaling and prediction sets, both from the validation images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fmnist.training.metrics import calibration

NOT_CALIBRATED = "not calibrated: that takes validation images (data.val_size) and a training that has ended"
COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of the temperature, which has none where all predictions are guesses."""


@dataclass(frozen=True)
class Calibrator:
    """What turns logits into calibrated probabilities.

    Args:
        temperature: the logits are divided by it.
        scores: 1 - the calibrated probability of the true class, of each of the N validation images, ascending (N).
    """

    temperature: float
    scores: Tensor

    @classmethod
    def fit(cls, logits: Tensor, labels: Tensor) -> "Calibrator | None":
        """Return the calibrator for logits (N, K) and labels (N) of images that the network wasn't trained on.

        None where a logit isn't finite. Source: Guo et al., On Calibration of Modern Neural Networks, section 4.2,
        https://arxiv.org/abs/1706.04599. The label counts (N + 1) / (N + K) and the other classes the rest, so that a
        few images that are all right don't make the network certain. Source: Platt, Probabilistic Outputs for Support
        Vector Machines, 1999, section 2.2.
        """
        if not len(logits) or not logits.isfinite().all():
            return None
        logits, labels = logits.double(), labels.long()
        count, classes = logits.shape
        log_temperature = torch.zeros((), dtype=torch.double, requires_grad=True)
        lbfgs = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")
        bounds = math.log(COLDEST), math.log(HOTTEST)

        def closure() -> Tensor:
            lbfgs.zero_grad()
            scaled = logits / log_temperature.clamp(*bounds).exp()
            loss = functional.cross_entropy(scaled, labels, label_smoothing=classes / (count + classes))
            loss.backward()
            return loss

        with torch.enable_grad():
            lbfgs.step(closure)
        temperature = math.exp(min(max(log_temperature.item(), bounds[0]), bounds[1]))
        probabilities = (logits / temperature).softmax(dim=1)
        scores = 1 - probabilities.gather(1, labels[:, None]).squeeze(1)
        return cls(temperature, scores.float().sort().values)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the calibrated probabilities (N, K), float32, of logits (N, K)."""
        return (logits.float() / self.temperature).softmax(dim=1)

    def prediction_sets(self, probabilities: Tensor, coverage: float) -> Tensor:
        """Return which classes (N, K) the prediction sets of calibrated probabilities (N, K) hold.

        Of images like the validation images, a set holds the true class with a probability of at least `coverage`. The
        most likely class is always in it. Source: Angelopoulos and Bates, A Gentle Introduction to Conformal
        Prediction, section 1, https://arxiv.org/abs/2107.07511

        Args:
            coverage: between 0 and 1.
        """
        count = len(self.scores)
        rank = math.ceil((count + 1) * coverage)
        highest = self.scores[rank - 1].item() if rank <= count else 1.0  # too few images: the set holds all classes
        likeliest = functional.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).bool()
        return (1 - probabilities <= highest) | likeliest

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"temperature": self.temperature, "scores": self.scores}

    @classmethod
    def from_dict(cls, values: Any) -> "Calibrator":
        """Return the calibrator of a checkpoint.

        Raises:
            ValueError: if it isn't one.
        """
        known = values if isinstance(values, dict) else {}
        temperature, scores = known.get("temperature"), known.get("scores")
        if not isinstance(temperature, float) or not COLDEST / 2 <= temperature <= HOTTEST * 2:
            raise ValueError(f"calibration: the temperature must be a number from {COLDEST} to {HOTTEST:g}")
        if not isinstance(scores, Tensor) or scores.ndim != 1 or scores.dtype != torch.float32 or not len(scores):
            raise ValueError("calibration: the scores must be numbers (N)")
        return cls(temperature, scores)


def calibration_metrics(calibrator: Calibrator, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return how right the probabilities for logits (N, K) are, given labels (N), without and with calibration.

    The errors are expected calibration errors, the losses mean negative log-likelihoods in nats.
    """
    values: dict[str, float] = {}
    for suffix, scaled in (("", logits.float()), ("_calibrated", logits.float() / calibrator.temperature)):
        values[f"error{suffix}"] = calibration(scaled.softmax(dim=1), labels).error
        values[f"loss{suffix}"] = functional.cross_entropy(scaled, labels).item()
    return values


def set_metrics(
    calibrator: Calibrator, logits: Tensor, labels: Tensor, coverage: float, classes: Sequence[str]
) -> dict[str, Any]:
    """Return how often the prediction sets for logits (N, K) hold the true class of labels (N), and their mean size.

    Returns:
        `wanted`, `coverage` and `size` of all images, and `classes`: (name, coverage, size) of each class with images.
    """
    sets = calibrator.prediction_sets(calibrator.probabilities(logits), coverage)
    covered, size = sets.gather(1, labels.long()[:, None]).squeeze(1).double(), sets.sum(dim=1).double()
    groups = [(name, labels == k) for k, name in enumerate(classes)]
    return {
        "wanted": coverage,
        "coverage": covered.mean().item(),
        "size": size.mean().item(),
        "classes": [(name, covered[own].mean().item(), size[own].mean().item()) for name, own in groups if own.any()],
    }


def calibration_line(calibrator: Calibrator, values: dict[str, float]) -> str:
    """Return what calibration changes, as a line that fits a terminal of 80 columns."""
    return (
        f"calibrated with temperature {calibrator.temperature:.2f}: expected calibration error "
        f"{values['error_calibrated']:.1%} (was {values['error']:.1%})"
    )
