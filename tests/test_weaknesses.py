import pytest
import torch
from torch import Tensor

from fmnist.data.info import CLASSES
from fmnist.report.weaknesses import confused_pairs, enumeration, smallest_group, weaknesses

T_SHIRT, TROUSER, PULLOVER, DRESS, COAT, SANDAL, SHIRT, SNEAKER, BAG, BOOT = range(10)


def network(mistakes: dict[tuple[int, int], int], total: int = 100) -> Tensor:
    """The confusion matrix of one that is right but for these (true, predicted) pairs."""
    confusion = total * torch.eye(10, dtype=torch.long)
    for (true, guess), count in mistakes.items():
        confusion[true, guess] += count
        confusion[true, true] -= count
    return confusion


def said(
    confusion: Tensor, sure: float = 0.5, sure_mistakes: float = 0.5, error: float | None = 0.1, **curves
) -> list[str]:
    """Of a network with one confidence where it is right and another where it isn't."""
    right = torch.arange(int(confusion.sum())) < confusion.trace()
    confidence = torch.where(right, sure, sure_mistakes)
    return weaknesses(
        confusion, confidence, right, error, {name.replace("_", "/"): line for name, line in curves.items()}
    )


def sentence(sentences: list[str], beginning: str) -> str:
    (found,) = (text for text in sentences if text.startswith(beginning))
    return found


def line(*values: float) -> list[tuple[float, float]]:
    return list(enumerate(values, 1))


SHIRTS = network({(SHIRT, T_SHIRT): 12, (T_SHIRT, SHIRT): 8, (SHIRT, COAT): 7, (COAT, SHIRT): 1, (BOOT, SNEAKER): 3})


def test_the_worst_classes_are_named_with_their_distance_from_the_mean() -> None:
    assert sentence(said(SHIRTS), "Shirt is") == (
        "Shirt is the weakest class: 81 of 100 are right (81.0%), 15.9 points under the mean of the classes, 96.9%. "
        "Next: T-shirt/top (92.0%)."
    )


def test_the_most_frequent_mistakes_have_their_direction_and_count() -> None:
    assert confused_pairs(SHIRTS, most=3) == [(SHIRT, T_SHIRT, 12), (T_SHIRT, SHIRT, 8), (SHIRT, COAT, 7)]
    assert sentence(said(SHIRTS), "The most frequent") == (
        "The most frequent mistakes: Shirt called T-shirt/top (12 of 100), T-shirt/top called Shirt (8 of 100), "
        "Shirt called Coat (7 of 100) and Ankle boot called Sneaker (3 of 100)."
    )


def test_the_smallest_group_that_holds_most_of_the_mistakes() -> None:
    assert smallest_group(SHIRTS, 0.6) == ((T_SHIRT, SHIRT), 20)
    assert smallest_group(SHIRTS, 0.75) == ((T_SHIRT, COAT, SHIRT), 28)
    assert smallest_group(SHIRTS, 1.0) == ((T_SHIRT, COAT, SHIRT, SNEAKER, BOOT), 31)
    assert "90% of the 31 mistakes confuse T-shirt/top, Coat and Shirt with each other." in said(SHIRTS)


def test_mistakes_that_are_spread_out_have_no_group() -> None:
    everywhere = network({(true, guess): 1 for true in range(10) for guess in range(10) if true != guess})
    assert "The 90 mistakes are spread out: no 6 classes hold 75% of them." in said(everywhere)


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (0.999, "It is over-confident: its mean confidence is 99.9%, its accuracy 96.9% "),
        (0.8, "It is under-confident: its mean confidence is 80.0%, its accuracy 96.9% "),
        (0.965, "It is about as confident as it should be on the whole: its mean confidence is 96.5%, "),
    ],
)
def test_confidence_beyond_and_below_accuracy(confidence: float, words: str) -> None:
    text = sentence(said(SHIRTS, confidence, confidence, error=0.034), "It is")
    assert text.startswith(words)
    assert text.endswith("(expected calibration error 3.4%).")


def test_mistakes_made_with_confidence_are_counted() -> None:
    assert sentence(said(SHIRTS, sure=0.5, sure_mistakes=0.95), "31 of") == (
        "31 of its 31 mistakes were made with more than 90% confidence. It is that sure of 3.1% of the images, "
        "and right on 0.0% of them."
    )
    assert "0 of its 31 mistakes were made with more than 90% confidence." in said(SHIRTS)


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (0.97, 0.93, "+4.0 points: a sign of overfitting."),
        (0.94, 0.93, "+1.0 points: little sign of overfitting."),
        (0.90, 0.93, "\N{MINUS SIGN}3.0 points: no sign of overfitting."),
    ],
)
def test_the_distance_of_training_and_validation_accuracy(train: float, val: float, words: str) -> None:
    curves = {"train_accuracy": line(0.8, train), "val_accuracy": line(0.8, val)}
    text = sentence(said(SHIRTS, **curves), "In epoch 2 ")
    assert f"{100 * train:.1f}% of the training and 93.0% of the validation images, {words}" in text
    assert "dropout" in text


def test_a_validation_loss_that_rises_again_is_told() -> None:
    text = "The validation loss was lowest in epoch 2 (0.3000) and rose to 0.4000 by epoch 3."
    assert text in said(SHIRTS, val_loss=[(0, 0.1), *line(0.5, 0.3, 0.4)])
    assert not any("lowest" in other for other in said(SHIRTS, val_loss=line(0.5, 0.3, 0.301)))


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        (
            (0.80, 0.90, 0.91, 0.92),
            "From epoch 2 to 4 validation accuracy changed by +1.00 points an epoch: it was still",
        ),
        ((0.90, 0.92, 0.921), "From epoch 1 to 3 validation accuracy changed by +1.05 points an epoch: it was still"),
        ((0.90, 0.901), "From epoch 1 to 2 validation accuracy changed by +0.10 points an epoch: it hardly moved"),
        (
            (0.92, 0.91, 0.90),
            "From epoch 1 to 3 validation accuracy changed by \N{MINUS SIGN}1.00 points an epoch: it was falling",
        ),
    ],
)
def test_the_trend_of_the_last_epochs(accuracies: tuple[float, ...], words: str) -> None:
    assert sentence(said(SHIRTS, val_accuracy=line(*accuracies)), "From epoch").startswith(words)


def test_one_epoch_after_the_untrained_network_is_no_trend() -> None:
    assert not any(text.startswith("From epoch") for text in said(SHIRTS, val_accuracy=[(0, 0.1), (1, 0.9)]))


def test_a_perfect_network_has_no_worst_class_and_no_pair() -> None:
    assert said(network({}), sure=0.9) == [
        "All 1,000 images are right, so they show no weakness; harder ones might.",
        "It is under-confident: its mean confidence is 90.0%, its accuracy 100.0% (expected calibration error 10.0%).",
    ]


def test_a_network_that_names_one_class_only() -> None:
    confusion = torch.zeros(10, 10, dtype=torch.long)
    confusion[:, BAG] = 20
    sentences = said(confusion)
    assert sentences[0] == ("It knows little: 20 of 200 images are right, where always naming one class would get 20.")
    assert f"It never answers {enumeration([name for name in CLASSES if name != 'Bag'])}." in sentences


def test_classes_without_images_are_left_out() -> None:
    confusion = SHIRTS.clone()
    confusion[[TROUSER, BAG]] = 0
    sentences = said(confusion)
    assert sentence(sentences, "Shirt is").endswith("under the mean of the classes, 96.1%. Next: T-shirt/top (92.0%).")
    assert not any("Trouser" in text or "Bag" in text for text in sentences)


def test_outputs_that_are_no_numbers_are_told_and_their_confidence_is_not() -> None:
    confidence = torch.tensor([torch.nan] * 5 + [0.5] * 995)
    sentences = weaknesses(SHIRTS, confidence, confidence > 0, None, {})
    assert sentences[0] == "For 5 of 1,000 images its outputs are no numbers: the training has diverged."
    assert not any("confiden" in text for text in sentences)


def test_enumeration() -> None:
    assert [enumeration(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_many_images_of_one_class_are_no_sign_of_knowing_little() -> None:
    confusion = torch.diag(torch.tensor([600, *[44] * 9]))
    confusion[1, 2] = 10
    assert not any(
        "knows little" in sentence
        for sentence in weaknesses(confusion, torch.ones(1006), torch.ones(1006) > 0, 0.0, {})
    )


def test_an_epoch_that_stands_twice_in_the_table_counts_once() -> None:
    curves = {"val/accuracy": [(1.0, 0.8), (1.0, 0.9)]}
    assert not any(
        "validation accuracy changed" in sentence
        for sentence in weaknesses(torch.eye(10).long(), torch.ones(10), torch.ones(10) > 0, 0.0, curves)
    )
