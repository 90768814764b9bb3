"""What a network is weak at, in sentences that its numbers write."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from fmnist.data.info import CLASSES

Curve = Sequence[tuple[float, float]]
"""(epoch, value), the epochs rising."""

SURE = 0.9  # confidence
MOST_MISTAKES = 0.75  # the share of all mistakes that a group of classes has to hold to be worth a word
LARGEST_GROUP = 6  # classes
FITTING = 0.01  # difference of confidence and accuracy that is nothing to speak of
OVERFITTING = 0.02  # difference of training and validation accuracy that is
STEADY = 0.002  # change of the accuracy in an epoch that is nothing to speak of
RISEN = 1.02  # the last validation loss to the lowest one


def weaknesses(
    confusion: Tensor, confidence: Tensor, right: Tensor, calibration_error: float | None, curves: Mapping[str, Curve]
) -> list[str]:
    """What is to be said against a network, the gravest first.

    Args:
        confusion: counts (K true, K predicted).
        confidence: probability of the predicted class of each image (N).
        right: whether it is the true one (N).
        calibration_error: the expected one, 0..1; None where some confidence is no number.
        curves: of the training, by the names of `fmnist.training.metric_names.metric_names`; any may be missing.
    """
    return [
        *_on_the_whole(confusion, confidence),
        *_worst_classes(confusion),
        *_most_confused(confusion),
        *_where_mistakes_are(confusion),
        *([] if calibration_error is None else _confidence(confidence, right, calibration_error)),
        *_overfitting(curves),
        *_trend(curves.get("val/accuracy", ())),
    ]


def confused_pairs(confusion: Tensor, most: int) -> list[tuple[int, int, int]]:
    """True class, predicted class and number of images of the most frequent mistakes, in falling order.

    Args:
        confusion: counts (K true, K predicted).
        most: how many at most; those that never happened are left out.
    """
    mistakes = _mistakes(confusion)
    order = mistakes.flatten().argsort(descending=True, stable=True)[:most]
    pairs = [divmod(place, len(confusion)) for place in order.tolist()]
    return [(true, guess, int(mistakes[true, guess])) for true, guess in pairs if mistakes[true, guess]]


def smallest_group(confusion: Tensor, share: float) -> tuple[tuple[int, ...], int]:
    """The fewest classes that, confused with each other, hold at least that share of all mistakes; and how many.

    Args:
        confusion: counts (K true, K predicted), not all of them right.
        share: 0..1.
    """
    mistakes = _mistakes(confusion)
    both = (mistakes + mistakes.T).tolist()
    for size in range(2, len(both) + 1):
        held = {
            group: sum(both[one][other] for one, other in combinations(group, 2))
            for group in combinations(range(len(both)), size)
        }
        best = max(held, key=lambda group: held[group])
        if held[best] >= share * int(mistakes.sum()):
            break
    return best, held[best]


def enumeration(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _on_the_whole(confusion: Tensor, confidence: Tensor) -> list[str]:
    right, total = int(confusion.trace()), int(confusion.sum())
    sentences = []
    if lost := int((~confidence.isfinite()).sum()):
        sentences.append(f"For {lost:,} of {total:,} images its outputs are no numbers: the training has diverged.")
    if right == total:
        sentences.append(f"All {total:,} images are right, so they show no weakness; harder ones might.")
    elif right - (always := int(confusion.sum(dim=1).max())) <= min(always, (total - always) / 2):
        sentences.append(
            f"It knows little: {right:,} of {total:,} images are right, where always naming one class would get "
            f"{always:,}."
        )
    return sentences


def _worst_classes(confusion: Tensor) -> list[str]:
    """The three worst classes of those under the mean, and the ones that are never named."""
    total, named = confusion.sum(dim=1), confusion.sum(dim=0)
    recall = confusion.diagonal().double() / total
    mean = recall.nanmean().item()
    order = recall.nan_to_num(nan=2).argsort(stable=True).tolist()
    worst, *others = [index for index in order if recall[index] < mean - 1e-9][:3] or [None]
    sentences = []
    if worst is not None:
        right, gap = int(confusion[worst, worst]), 100 * (mean - recall[worst].item())
        first = (
            f"{CLASSES[worst]} is the weakest class: {right:,} of {int(total[worst]):,} are right "
            f"({recall[worst]:.1%}), {gap:.1f} points under the mean of the classes, {mean:.1%}."
        )
        after = enumeration([f"{CLASSES[index]} ({recall[index]:.1%})" for index in others])
        sentences.append(f"{first} Next: {after}." if after else first)
    if never := [CLASSES[index] for index in order if total[index] and not named[index]]:
        sentences.append(f"It never answers {enumeration(never)}.")
    return sentences


def _most_confused(confusion: Tensor) -> list[str]:
    totals = confusion.sum(dim=1).tolist()
    pairs = [
        f"{CLASSES[true]} called {CLASSES[guess]} ({count:,} of {totals[true]:,})"
        for true, guess, count in confused_pairs(confusion, most=4)
    ]
    return [f"The most frequent mistakes: {enumeration(pairs)}."] if pairs else []


def _where_mistakes_are(confusion: Tensor) -> list[str]:
    mistakes = int(_mistakes(confusion).sum())
    if not mistakes:
        return []
    group, held = smallest_group(confusion, MOST_MISTAKES)
    if len(group) > LARGEST_GROUP:
        return [
            f"The {mistakes:,} mistakes are spread out: no {LARGEST_GROUP} classes hold {MOST_MISTAKES:.0%} of them."
        ]
    names = enumeration([CLASSES[index] for index in group])
    return [f"{held / mistakes:.0%} of the {mistakes:,} mistakes confuse {names} with each other."]


def _confidence(confidence: Tensor, right: Tensor, error: float) -> list[str]:
    """Over- or under-confidence, and the mistakes it is sure of."""
    sure, wrong = confidence > SURE, ~right
    mean, accuracy = confidence.double().mean().item(), right.double().mean().item()
    word = "over-confident" if mean > accuracy else "under-confident"
    if abs(mean - accuracy) < FITTING:
        word = "about as confident as it should be on the whole"
    sentences = [
        f"It is {word}: its mean confidence is {mean:.1%}, its accuracy {accuracy:.1%} "
        f"(expected calibration error {error:.1%})."
    ]
    if wrong.any():
        mistakes = int((sure & wrong).sum())
        sentence = f"{mistakes:,} of its {int(wrong.sum()):,} mistakes were made with more than {SURE:.0%} confidence."
        if sure.any():
            kept = right[sure].double().mean().item()
            sentence += (
                f" It is that sure of {sure.double().mean().item():.1%} of the images, and right on {kept:.1%} of them."
            )
        sentences.append(sentence)
    return sentences


def _overfitting(curves: Mapping[str, Curve]) -> list[str]:
    train, val = dict(curves.get("train/accuracy", ())), dict(curves.get("val/accuracy", ()))
    sentences = []
    if both := sorted(train.keys() & val.keys()):
        epoch = both[-1]
        gap = train[epoch] - val[epoch]
        sign = "a sign" if gap >= OVERFITTING else "little sign" if gap > 0 else "no sign"
        sentences.append(
            f"In epoch {epoch:g} it was right on {train[epoch]:.1%} of the training and {val[epoch]:.1%} of the "
            f"validation images, {_signed(100 * gap, 1)} points: {sign} of overfitting. (Training "
            "accuracy is counted while the network still learns, with augmentation and dropout where there are any: "
            "the finished network is likely to know its training images better.)"
        )
    losses = [point for point in curves.get("val/loss", ()) if point[0] > 0]
    if losses:
        best, last = min(losses, key=lambda point: point[1]), losses[-1]
        if last[1] > RISEN * best[1]:
            sentences.append(
                f"The validation loss was lowest in epoch {best[0]:g} ({best[1]:.4f}) and rose to {last[1]:.4f} by "
                f"epoch {last[0]:g}."
            )
    return sentences


def _trend(accuracy: Curve) -> list[str]:
    """What the last epochs let one expect of more; epoch 0 is the untrained network."""
    recent = sorted((epoch, value) for epoch, value in dict(accuracy).items() if epoch > 0)[-3:]
    if len(recent) < 2:
        return []
    (start, before), (end, after) = recent[0], recent[-1]
    slope = (after - before) / (end - start)
    change = (
        f"From epoch {start:g} to {end:g} validation accuracy changed by {_signed(100 * slope, 2)} points an epoch: "
    )
    if slope > STEADY:
        return [f"{change}it was still rising, so more epochs may help, with a schedule that is made for them."]
    if slope < -STEADY:
        return [f"{change}it was falling, so more epochs of the same are unlikely to help."]
    return [f"{change}it hardly moved, so more epochs alone promise little."]


def _mistakes(confusion: Tensor) -> Tensor:
    """The counts (K, K) without those of the right predictions."""
    return confusion - torch.diag(confusion.diagonal())


def _signed(value: float, digits: int) -> str:
    """With a sign; a real minus, not a hyphen."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
