"""Results as text."""

import io

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fmnist.classes import CLASSES

WIDTH = 80


def class_table(confusion: Tensor) -> str:
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
    for name, right, out_of in zip(CLASSES, correct.tolist(), total.tolist(), strict=True):
        table.add_row(name, f"{right:,}", f"{out_of:,}", _percent(right, out_of))
    return _render(table)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def _render(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())
