import pytest
import torch
from torch import nn

from fmnist.training.losses import CrossEntropy, MeanSquaredError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0], [-30.0, 0.0, 60.0]])
LABELS = torch.tensor([0, 2, 1, 1])


def test_cross_entropy_of_logits_is_negative_log_likelihood_of_log_softmax() -> None:
    """Two ways in which the loss is written: a network that ends in log-softmax, and one that ends in logits."""
    ours = LOGITS.clone().requires_grad_()
    theirs = LOGITS.clone().requires_grad_()
    loss = CrossEntropy()(ours, LABELS)
    likelihood = nn.NLLLoss()(nn.LogSoftmax(dim=1)(theirs), LABELS)
    loss.backward()
    likelihood.backward()
    torch.testing.assert_close(loss, likelihood)
    torch.testing.assert_close(ours.grad, theirs.grad)
    by_hand = -torch.stack([LOGITS[i].log_softmax(0)[label] for i, label in enumerate(LABELS)]).mean()
    assert loss.item() == pytest.approx(by_hand.item())


def test_label_smoothing_acts_in_training_alone() -> None:
    smooth, plain = CrossEntropy(label_smoothing=0.2), CrossEntropy()
    uniform = -LOGITS.log_softmax(1).mean()
    expected = 0.8 * plain(LOGITS, LABELS) + 0.2 * uniform
    torch.testing.assert_close(smooth.train()(LOGITS, LABELS), expected)
    torch.testing.assert_close(smooth.eval()(LOGITS, LABELS), plain(LOGITS, LABELS))


SHARES = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(0.1), MeanSquaredError()])
def test_shares_of_one_class_are_its_label(loss: nn.Module) -> None:
    shares = nn.functional.one_hot(LABELS, 3).float()
    torch.testing.assert_close(loss(LOGITS, shares), loss(LOGITS, LABELS))


def test_cross_entropy_of_shares_is_the_mean_of_the_classes_by_their_shares() -> None:
    by_hand = -(SHARES * LOGITS.log_softmax(1)).sum(dim=1).mean()
    torch.testing.assert_close(CrossEntropy()(LOGITS, SHARES), by_hand)
    smooth = CrossEntropy(label_smoothing=0.2)
    uniform = -LOGITS.log_softmax(1).mean()
    torch.testing.assert_close(smooth.train()(LOGITS, SHARES), 0.8 * by_hand + 0.2 * uniform)
    torch.testing.assert_close(smooth.eval()(LOGITS, SHARES), by_hand)


def test_mean_squared_error_of_shares_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0]])  # probabilities 1/2 1/2, 1 0
    shares = torch.tensor([[0.7, 0.3], [0.9, 0.1]])
    assert MeanSquaredError()(logits, shares).item() == pytest.approx((0.2**2 + 0.1**2) / 2)


@pytest.mark.parametrize("loss", [CrossEntropy(0.1), MeanSquaredError()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_shares_go_with_logits_of_any_precision(loss: nn.Module, dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype).requires_grad_()
    value = loss(logits, SHARES)
    value.backward()
    assert value.item() == pytest.approx(loss(LOGITS, SHARES).item(), rel=0.02)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_mean_squared_error_is_between_probabilities_and_one_hot_labels() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])  # probabilities 1/2 1/2, 1 0, 0 1
    labels = torch.tensor([0, 0, 0])
    assert MeanSquaredError()(logits[:1], labels[:1]).item() == pytest.approx(0.25)
    assert MeanSquaredError()(logits[1:2], labels[1:2]).item() == pytest.approx(0.0)
    assert MeanSquaredError()(logits[2:], labels[2:]).item() == pytest.approx(1.0)  # 2 / K
    assert MeanSquaredError()(logits, labels).item() == pytest.approx(1.25 / 3)


def test_mean_squared_error_has_a_gradient_towards_the_label() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    MeanSquaredError()(logits, torch.tensor([2])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 2] < 0
    assert all(logits.grad[0, k] > 0 for k in (0, 1, 3))
