"""The weaknesses of a network in sentences, and what to try."""

from collections.abc import Mapping, Sequence

from torch import Tensor

Curve = Sequence[tuple[float, float]]
"""(epoch, value), the epochs rising."""

# Differences up to these aren't worth a sentence:
CALIBRATED = 0.02  # of mean confidence and accuracy; the validation images are often half a point easier
OVERFITTING = 0.02  # of training and validation accuracy
RISING = 0.002  # of the validation accuracy in an epoch
NAMED = 10  # classes in a sentence
RISEN = 1.02  # the last validation loss to the lowest one, as a ratio
FALLEN = 0.5  # the last learning rate to the highest one, as a ratio


def weaknesses(
    confusion: Tensor,
    confidence: Tensor,
    right: Tensor,
    curves: Mapping[str, Curve],
    classes: Sequence[str],
    *,
    calibrated: bool,
) -> list[str]:
    """Return what is weak, the gravest first.

    Args:
        confusion: counts (K true, K predicted).
        confidence: probability of the predicted class of each image (N).
        right: whether that class is the true one (N).
        curves: of the training, by the names of `fmnist.training.metric_names.metric_names`; any may be missing.
        calibrated: whether the probabilities are calibrated.
    """
    sentences = [
        _divergence(confidence),
        _worst_classes(confusion, classes),
        _never_predicted(confusion, classes),
        _calibration(confidence, right, calibrated),
        _overfitting(curves),
        _rising_loss(curves.get("val/loss", ())),
        _rising_accuracy(curves),
    ]
    return [sentence for sentence in sentences if sentence]


def confused_pairs(confusion: Tensor, most: int) -> list[tuple[int, int, int]]:
    """Return true class, predicted class and number of images of the most frequent mistakes, in falling order.

    They are at most `most` pairs of the counts (K true, K predicted), and none that is never confused.
    """
    mistakes = confusion.clone().fill_diagonal_(0)
    order = mistakes.flatten().argsort(descending=True, stable=True)[:most]
    pairs = [divmod(place, len(confusion)) for place in order.tolist()]
    return [(true, guess, int(mistakes[true, guess])) for true, guess in pairs if mistakes[true, guess]]


def _divergence(confidence: Tensor) -> str:
    lost = int((~confidence.isfinite()).sum())
    if not lost:
        return ""
    return (
        f"The outputs for {lost:,} of {len(confidence):,} images are not finite: the training has diverged. "
        "Try a smaller optimizer.lr."
    )


def _worst_classes(confusion: Tensor, classes: Sequence[str]) -> str:
    """Name the three worst classes of those below the mean."""
    total = confusion.sum(dim=1)
    recall = confusion.diagonal().double() / total
    mean = recall.nanmean().item()
    order = recall.nan_to_num(nan=2).argsort(stable=True).tolist()
    worst, *others = [index for index in order if recall[index] < mean - 1e-9][:3] or [None]
    if worst is None:
        return ""
    following = ", ".join(f"{classes[index]} ({recall[index]:.1%})" for index in others)
    return (
        f"{classes[worst]} is the weakest class: {int(confusion[worst, worst]):,} of {int(total[worst]):,} are right "
        f"({recall[worst]:.1%}; the mean of the classes is {mean:.1%})." + (f" Next: {following}." if following else "")
    )


def _never_predicted(confusion: Tensor, classes: Sequence[str]) -> str:
    counts = zip(classes, confusion.sum(dim=1).tolist(), confusion.sum(dim=0).tolist(), strict=True)
    never = [name for name, images, predictions in counts if images and not predictions]
    more = f" and {len(never) - NAMED:,} more" if len(never) > NAMED else ""
    return f"Never predicted: {', '.join(never[:NAMED])}{more}." if never else ""


def _calibration(confidence: Tensor, right: Tensor, calibrated: bool) -> str:
    mean, accuracy = confidence.double().mean().item(), right.double().mean().item()
    if not abs(mean - accuracy) >= CALIBRATED:  # also where it is NaN
        return ""
    word = "over-confident" if mean > accuracy else "under-confident"
    advice = "Calibrate with more validation images" if calibrated else "Calibrate: train with validation images"
    return (
        f"The network is {word}: its mean confidence is {mean:.1%}, its accuracy {accuracy:.1%}. "
        f"{advice} (data.val_size)."
    )


def _overfitting(curves: Mapping[str, Curve]) -> str:
    train, val = dict(curves.get("train/accuracy", ())), dict(curves.get("val/accuracy", ()))
    epoch = max(train.keys() & val.keys(), default=None)
    if epoch is None or train[epoch] - val[epoch] < OVERFITTING:
        return ""
    return (
        f"The network overfits: in epoch {epoch:g} the training accuracy is {train[epoch]:.1%}, the validation "
        f"accuracy {val[epoch]:.1%}. Try more dropout, augmentation (augment) or images."
    )


def _rising_loss(loss: Curve) -> str:
    trained = [point for point in loss if point[0] > 0]  # epoch 0 is the untrained network
    if not trained:
        return ""
    (best_epoch, best), (epoch, last) = min(trained, key=lambda point: point[1]), trained[-1]
    if last <= RISEN * best:
        return ""
    return (
        f"The validation loss rises again, from {best:.4f} in epoch {best_epoch:g} to {last:.4f} in epoch {epoch:g}. "
        f"Try trainer.max_epochs={max(1, round(best_epoch))}."
    )


def _rising_accuracy(curves: Mapping[str, Curve]) -> str:
    recent = sorted((epoch, value) for epoch, value in dict(curves.get("val/accuracy", ())).items() if epoch > 0)[-3:]
    rates = [rate for _, rate in curves.get("learning_rate", ())]
    # A falling learning rate raises the accuracy of any training, however long.
    if len(recent) < 2 or (rates and rates[-1] < FALLEN * max(rates)):
        return ""
    (start, before), (end, after) = recent[0], recent[-1]
    slope = (after - before) / (end - start)
    if slope <= RISING:
        return ""
    return (
        f"The validation accuracy still rises by {100 * slope:.2f} points an epoch. "
        f"Try trainer.max_epochs={2 * round(end)}."
    )
