"""Names of the metrics, and their better direction. Imports no torch, as reading results needs none."""

from collections.abc import Sequence

PHASES = ("train", "val", "test")
TOP5_CLASSES = 20
"""Number of classes from which on the accuracy of the five most likely ones is measured, too."""
MANY_CLASSES = 50
"""Number of classes above which they are too many for a curve, a row or a bar of each."""


def scalar_names(num_classes: int) -> tuple[str, ...]:
    """Return the names of what `fmnist.training.metrics` computes as one number for a phase."""
    return ("loss", "accuracy", "accuracy_top5") if num_classes >= TOP5_CLASSES else ("loss", "accuracy")


def metric_names(phase: str, classes: Sequence[str]) -> list[str]:
    """Return the names of the scalars that a phase logs: val/loss, val/accuracy, val/accuracy_per_class/Trouser, ...

    There are none of single classes where these are too many.
    """
    shown = classes if len(classes) <= MANY_CLASSES else ()
    return [f"{phase}/{name}" for name in (*scalar_names(len(classes)), *(f"accuracy_per_class/{c}" for c in shown))]


def direction(metric: str) -> str:
    """Return the better direction of a metric: "min" for a loss, "max" for all others."""
    return "min" if metric.endswith("loss") else "max"
