"""Names of the metrics, and their better direction. Imports no torch, as reading results needs none."""

from collections.abc import Sequence

PHASES = ("train", "val", "test")
SCALARS = ("loss", "accuracy")
"""What `fmnist.training.metrics` computes as one number for a phase."""


def metric_names(phase: str, classes: Sequence[str]) -> list[str]:
    """Return the names of the scalars that a phase logs: val/loss, val/accuracy, val/accuracy_per_class/Trouser, ..."""
    names = (*SCALARS, *(f"accuracy_per_class/{name}" for name in classes))
    return [f"{phase}/{name}" for name in names]


def direction(metric: str) -> str:
    """Return the better direction of a metric: "min" for a loss, "max" for all others."""
    return "min" if metric.endswith("loss") else "max"
