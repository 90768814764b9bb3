"""Results as text."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from fmnist.plotting.terminal import as_text


def class_table(confusion: Tensor, classes: Sequence[str]) -> str:
    """Correct, total and % of each class and of all.

    Args:
        confusion: counts (K true, K predicted).
    """
    table = Table("class", box=SIMPLE_HEAD, show_footer=True)
    correct, total = confusion.diagonal(), confusion.sum(dim=1)
    table.columns[0].footer = "all"
    for name, counts in (("correct", correct), ("total", total)):
        table.add_column(name, justify="right", footer=f"{int(counts.sum()):,}")
    table.add_column("%", justify="right", footer=_percent(int(correct.sum()), int(total.sum())))
    for name, right, out_of in zip(classes, correct.tolist(), total.tolist(), strict=True):
        table.add_row(name, f"{right:,}", f"{out_of:,}", _percent(right, out_of))
    return as_text(table)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"
