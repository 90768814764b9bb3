"""Cross-entropy and mean squared error, by value."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fmnist.training.losses import CrossEntropy, MeanSquaredError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0], [-30.0, 0.0, 60.0]])
LABELS = torch.tensor([0, 2, 1, 1])
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["labels", "soft labels"])
def test_cross_entropy_by_value_with_label_smoothing_in_training_only(labels: torch.Tensor) -> None:
    soft = labels if labels.ndim == 2 else functional.one_hot(labels, 3)
    plain = -(soft * LOGITS.log_softmax(dim=1)).sum(dim=1).mean()
    smoothed = 0.8 * plain - 0.2 * LOGITS.log_softmax(1).mean()
    loss = CrossEntropy(label_smoothing=0.2)
    torch.testing.assert_close(CrossEntropy()(LOGITS, labels), plain)
    torch.testing.assert_close(loss.train()(LOGITS, labels), smoothed)
    torch.testing.assert_close(loss.eval()(LOGITS, labels), plain)


def test_mean_squared_error_by_value() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])  # probabilities 1/2 1/2, 1 0, 0 1
    losses = [MeanSquaredError()(logits[i : i + 1], torch.tensor([0])).item() for i in range(3)]
    assert losses == pytest.approx([0.25, 0.0, 1.0])  # the largest is 2 / K
    assert MeanSquaredError()(logits, torch.zeros(3, dtype=torch.long)).item() == pytest.approx(1.25 / 3)
    soft = torch.tensor([[0.7, 0.3], [0.9, 0.1]])
    assert MeanSquaredError()(logits[:2], soft).item() == pytest.approx((0.2**2 + 0.1**2) / 2)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(0.1), MeanSquaredError()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_soft_labels_go_with_logits_of_any_precision(loss: nn.Module, dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype).requires_grad_()
    value = loss(logits, SOFT)
    value.backward()
    assert value.item() == pytest.approx(loss(LOGITS, SOFT).item(), rel=0.02)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
