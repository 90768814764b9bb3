"""Results as text."""

from collections.abc import Sequence

from torch import Tensor

from fmnist.plotting.terminal import as_text, grid
from fmnist.training.metric_names import MANY_CLASSES

SHOWN = 20  # of many classes


def class_table(confusion: Tensor, classes: Sequence[str]) -> str:
    """Return a table of correct, total and % of each class and of all, from counts (K true, K predicted).

    Of many classes it has the least accurate ones.
    """
    correct, total = confusion.diagonal(), confusion.sum(dim=1)
    counts = list(zip(classes, correct.tolist(), total.tolist(), strict=True))
    if rest := len(counts) - SHOWN if len(counts) > MANY_CLASSES else 0:
        counts = sorted(counts, key=lambda row: row[1] / row[2] if row[2] else 2)[:SHOWN]
    counts.append(("all", int(correct.sum()), int(total.sum())))
    rows = [
        (name, f"{right:,}", f"{images:,}", f"{100 * right / images:.2f}" if images else "-")
        for name, right, images in counts
    ]
    if rest:
        rows.insert(-1, (f"{rest:,} classes that are more accurate", "", "", ""))
    return as_text(grid(["class", "correct", "total", "%"], rows, words=["class"]))
