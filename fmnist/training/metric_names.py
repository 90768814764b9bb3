"""What is measured, by name, and which way is better. No torch, for those who only read results."""

from collections.abc import Sequence

PHASES = ("train", "val", "test")


def metric_names(phase: str, classes: Sequence[str]) -> list[str]:
    """The scalars that a phase logs, by name: val/loss, val/accuracy, val/accuracy_per_class/Trouser, ..."""
    return [f"{phase}/loss", f"{phase}/accuracy", *(f"{phase}/accuracy_per_class/{name}" for name in classes)]


def direction(metric: str) -> str:
    """'min' for a loss, 'max' for everything else: which way is better."""
    return "min" if metric.endswith("loss") else "max"
