"""What has been measured: rows in CSV files that git keeps."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from fmnist.runs.files import atomic_write

DECIMALS = 4
"""Of every number that isn't whole."""


@dataclass(frozen=True)
class Row:
    """The test of one training, or of several together. The fields are the columns."""

    recipe: str
    variant: str
    """Empty for the recipe itself."""
    seed: int
    """The first one of several."""
    split: str
    """test, or val where variants are compared."""
    views: str
    """Of each image: none, or a test-time augmentation."""
    runs: int
    """1, or how many answered together."""
    parameters: int
    """Of all of them, as are the seconds."""
    epochs: int
    seconds: float
    """Of the epochs, with whatever happens in them."""
    tutorial_epoch_seconds: float
    """Mean of the measurements before and after the training."""
    accuracy: float
    loss: float
    precision: str
    machine: str
    date: str
    version: str
    """Of the code; with a + where it differed from that."""

    @property
    def identity(self) -> tuple[str, str, int, str, str, int, str]:
        """There is one row of it."""
        return (self.recipe, self.variant, self.seed, self.split, self.views, self.runs, self.machine)

    @property
    def plain(self) -> bool:
        """Whether it is of one network that sees each image once."""
        return self.runs == 1 and self.views == "none"

    @property
    def tutorial_epochs(self) -> float:
        """Its time in epochs of the tutorial's own loop."""
        return self.seconds / self.tutorial_epoch_seconds


Line = TypeVar("Line")
"""A dataclass of which each instance is a line of a file."""


def put(rows: Iterable[Row], row: Row) -> list[Row]:
    """The rows with one more, at the end or in the place of what was measured before.

    What a network showed that is trained anew, in other views or with others together, is no longer known.
    """
    anew = row.plain and row.split == "test"
    stale = {(row.recipe, row.machine)} if anew else {}
    others = {other.identity: other for other in rows if other.plain or (other.recipe, other.machine) not in stale}
    others[row.identity] = row
    return [*others.values()]


def as_csv(kind: type[Any], rows: Iterable[Any]) -> str:
    """The file's text.

    Args:
        kind: the dataclass of the rows.
        rows: a line for each.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([column.name for column in fields(kind)])
    for row in rows:
        values = asdict(row).values()
        table.writerow([f"{value:.{DECIMALS}f}" if isinstance(value, float) else value for value in values])
    return text.getvalue()


def write_rows(kind: type[Any], file: Path, rows: Iterable[Any]) -> None:
    """Writes the file so that nobody sees half of it."""
    atomic_write(file, as_csv(kind, rows))


def read_rows(kind: type[Line], file: Path) -> list[Line]:
    """The rows of a file; none where there is no file.

    Raises:
        ValueError: if it holds something else.
    """
    if not file.is_file():
        return []
    try:
        lines = [*csv.reader(file.read_text().splitlines())]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} can't be read: {' '.join(str(error).split())}") from error
    columns = [column.name for column in fields(kind)]  # type: ignore[arg-type]
    if lines[:1] != [columns]:
        raise ValueError(f"{file}: its columns should be {','.join(columns)}")
    return [_row(kind, file, number, cells) for number, cells in enumerate(lines[1:], start=2)]


def _row(kind: type[Line], file: Path, number: int, cells: Sequence[str]) -> Line:
    """One of the lines.

    Raises:
        ValueError: naming it, if a value can't be.
    """
    try:
        columns = zip(fields(kind), cells, strict=True)  # type: ignore[arg-type]
        return kind(**{column.name: column.type(cell) for column, cell in columns})  # type: ignore[operator]
    except ValueError as error:
        raise ValueError(f"{file}, line {number}: {error}") from error
