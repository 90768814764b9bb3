"""Each weakness of a network, as the report words it."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from fmnist.data.info import FASHION_MNIST
from fmnist.report.weaknesses import confused_pairs, weaknesses

T_SHIRT, TROUSER, PULLOVER, DRESS, COAT, SANDAL, SHIRT, SNEAKER, BAG, BOOT = range(10)


def network(mistakes: Mapping[tuple[int, int], int], total: int = 100) -> Tensor:
    """The confusion matrix of one that is right except for these (true, predicted) pairs."""
    confusion = total * torch.eye(10, dtype=torch.long)
    for (true, guess), count in mistakes.items():
        confusion[true, guess] += count
        confusion[true, true] -= count
    return confusion


SHIRTS = network({(SHIRT, T_SHIRT): 12, (T_SHIRT, SHIRT): 8, (SHIRT, COAT): 7, (COAT, SHIRT): 1, (BOOT, SNEAKER): 3})


WEAKEST = (
    "Shirt is the weakest class: 81 of 100 are right (81.0%; the mean of the classes is 96.9%). "
    "Next: T-shirt/top (92.0%)."
)


def said(
    confusion: Tensor,
    confidence: float | None = None,
    *,
    calibrated: bool = True,
    **curves: Sequence[tuple[float, float]],
) -> list[str]:
    """With one confidence for all images, which is the accuracy unless it is given."""
    right = torch.arange(int(confusion.sum())) < confusion.trace()
    filled = torch.full((len(right),), right.double().mean().item() if confidence is None else confidence)
    named = {name.replace("train_", "train/").replace("val_", "val/"): line for name, line in curves.items()}
    return weaknesses(confusion, filled, right, named, FASHION_MNIST.classes, calibrated=calibrated)


def line(*values: float) -> list[tuple[float, float]]:
    return list(enumerate(values, 1))


def test_the_weakest_classes_are_named_with_their_counts() -> None:
    assert said(SHIRTS) == [WEAKEST]
    assert confused_pairs(SHIRTS, most=3) == [(SHIRT, T_SHIRT, 12), (T_SHIRT, SHIRT, 8), (SHIRT, COAT, 7)]
    assert said(network({})) == []


def test_classes_without_images_are_left_out_and_those_never_predicted_are_named() -> None:
    confusion = SHIRTS.clone()
    confusion[[TROUSER, BAG]] = 0
    sentences = said(confusion)
    assert "81 of 100 are right (81.0%; the mean of the classes is 96.1%)" in sentences[0]
    assert not any("Trouser" in text or "Bag" in text for text in sentences)
    confusion = torch.zeros(10, 10, dtype=torch.long)
    confusion[:8, BAG], confusion[BAG, BAG], confusion[BOOT, BOOT] = 20, 20, 20
    assert f"Never predicted: {', '.join(FASHION_MNIST.classes[:8])}." in said(confusion)


@pytest.mark.parametrize(
    ("confidence", "calibrated", "words"),
    [
        (
            0.999,
            True,
            "over-confident: its mean confidence is 99.9%, its accuracy 96.9%. "
            "Calibrate with more validation images (data.val_size).",
        ),
        (
            0.8,
            False,
            "under-confident: its mean confidence is 80.0%, its accuracy 96.9%. "
            "Calibrate: train with validation images (data.val_size).",
        ),
        (0.95, False, None),
    ],
)
def test_confidence_above_and_below_accuracy(confidence: float, calibrated: bool, words: str | None) -> None:
    expected = [f"The network is {words}"] if words else []
    assert said(SHIRTS, confidence, calibrated=calibrated) == [WEAKEST, *expected]


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        (
            {"train_accuracy": line(0.8, 0.97), "val_accuracy": line(0.93, 0.93)},
            "The network overfits: in epoch 2 the training accuracy is 97.0%, the validation accuracy 93.0%. "
            "Try more dropout, augmentation (augment) or images.",
        ),
        ({"train_accuracy": line(0.8, 0.94), "val_accuracy": line(0.93, 0.93)}, None),
        (
            {"val_loss": [(0, 0.1), *line(0.5, 0.3, 0.4)]},
            "The validation loss rises again, from 0.3000 in epoch 2 to 0.4000 in epoch 3. Try trainer.max_epochs=2.",
        ),
        ({"val_loss": line(0.5, 0.3, 0.301)}, None),
        (
            {"val_accuracy": line(0.80, 0.90, 0.91, 0.92)},
            "The validation accuracy still rises by 1.00 points an epoch. Try trainer.max_epochs=8.",
        ),
        (  # a falling learning rate raises the accuracy of any training
            {"val_accuracy": line(0.80, 0.90, 0.91, 0.92), "learning_rate": line(0.1, 0.07, 0.03, 0)},
            None,
        ),
        (
            {"val_accuracy": line(0.80, 0.90, 0.91, 0.92), "learning_rate": line(0.1, 0.1, 0.1, 0.1)},
            "The validation accuracy still rises by 1.00 points an epoch. Try trainer.max_epochs=8.",
        ),
        ({"val_accuracy": line(0.92, 0.91, 0.90)}, None),
        ({"val_accuracy": [(0, 0.1), (1, 0.9)]}, None),  # one epoch after the untrained network is no trend
        ({"val_accuracy": [(1, 0.8), (1, 0.9)]}, None),  # an epoch that stands twice in the table counts once
    ],
)
def test_training_curves(curves: dict[str, list[tuple[float, float]]], words: str | None) -> None:
    assert said(SHIRTS, **curves) == [WEAKEST, *([words] if words else [])]


def test_outputs_that_are_not_finite_come_first_and_their_confidence_is_not_judged() -> None:
    confidence = torch.tensor([torch.nan] * 5 + [0.5] * 995)
    sentences = weaknesses(SHIRTS, confidence, confidence > 0, {}, FASHION_MNIST.classes, calibrated=True)
    assert sentences[0] == (
        "The outputs for 5 of 1,000 images are not finite: the training has diverged. Try a smaller optimizer.lr."
    )
    assert not any("confiden" in text for text in sentences)
