"""Results as text."""

from collections.abc import Sequence

from torch import Tensor

from fmnist.plotting.terminal import as_text, grid


def class_table(confusion: Tensor, classes: Sequence[str]) -> str:
    """Return a table of correct, total and % of each class and of all, from counts (K true, K predicted)."""
    correct, total = confusion.diagonal(), confusion.sum(dim=1)
    counts = [*zip(correct.tolist(), total.tolist(), strict=True), (int(correct.sum()), int(total.sum()))]
    rows = [
        (name, f"{right:,}", f"{images:,}", f"{100 * right / images:.2f}" if images else "-")
        for name, (right, images) in zip([*classes, "all"], counts, strict=True)
    ]
    return as_text(grid(["class", "correct", "total", "%"], rows, words=["class"]))
