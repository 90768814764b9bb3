"""What has been measured: a row for each training, in one CSV file that git keeps."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fmnist.files import write_whole


@dataclass(frozen=True)
class Row:
    """One training. The fields are the columns."""

    recipe: str
    variant: str
    """Empty for the recipe itself."""
    seed: int
    split: str
    """test, or val where variants are compared."""
    parameters: int
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
    def identity(self) -> tuple[str, str, int, str, str]:
        """There is one row of it."""
        return (self.recipe, self.variant, self.seed, self.split, self.machine)

    @property
    def tutorial_epochs(self) -> float:
        """Its time in epochs of the tutorial's own loop."""
        return self.seconds / self.tutorial_epoch_seconds


COLUMNS = [column.name for column in fields(Row)]
DECIMALS = {"seconds": 3, "tutorial_epoch_seconds": 3, "accuracy": 4, "loss": 4}


def put(rows: Iterable[Row], row: Row) -> list[Row]:
    """The rows with one more, at the end or in the place of what was measured before."""
    others = {other.identity: other for other in rows}
    others[row.identity] = row
    return [*others.values()]


def as_csv(rows: Iterable[Row]) -> str:
    """The file's text."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([_cell(name, value) for name, value in asdict(row).items()] for row in rows)
    return text.getvalue()


def _cell(name: str, value: Any) -> str:
    return f"{value:.{DECIMALS[name]}f}" if name in DECIMALS else str(value)


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Writes the file so that nobody sees half of it."""
    write_whole(file, as_csv(rows))


def read_rows(file: Path) -> list[Row]:
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
    if lines[:1] != [COLUMNS]:
        raise ValueError(f"{file}: its columns should be {','.join(COLUMNS)}")
    return [_row(file, number, cells) for number, cells in enumerate(lines[1:], start=2)]


def _row(file: Path, number: int, cells: Sequence[str]) -> Row:
    """One of the lines.

    Raises:
        ValueError: naming it, if a value can't be.
    """
    try:
        values = {column.name: column.type(cell) for column, cell in zip(fields(Row), cells, strict=True)}  # type: ignore[operator]
    except ValueError as error:
        raise ValueError(f"{file}, line {number}: {error}") from error
    return Row(**values)
