"""What has been measured: docs/results.csv, a row for each training, and a row for each evaluation of its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmnist.runs.files import atomic_write
from tools.results.catalogue import Hardware, Task

COLUMNS: Mapping[str, type] = {
    "recipe": str,
    "variant": str,  # empty for the recipe itself
    "seed": int,  # of an ensemble: the first one
    "split": str,  # test, or val in ablations
    "tta": str,  # test-time augmentation, or none
    "runs": int,  # 1, or the number of networks in an ensemble
    "parameters": int,  # of an ensemble: of all networks, as are the seconds
    "epochs": int,
    "seconds": float,
    "tutorial_epoch_seconds": float,  # mean of the measurements before and after the training
    "accuracy": float,
    "loss": float,
    "precision": str,
    "machine": str,
    "date": str,
    "version": str,  # the commit, with a + where the code differed from it
}
IDENTITY = ["recipe", "variant", "seed", "split", "tta", "runs", "machine"]
"""No two rows are equal in all of these."""


@dataclass(frozen=True)
class ResultsStore:
    """The rows of a CSV file."""

    file: Path

    def read(self) -> pd.DataFrame:
        """Return the rows; none where there is no file.

        Raises:
            ValueError: if the file holds something else.
        """
        if not self.file.is_file():
            return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
        try:
            rows = pd.read_csv(self.file, dtype=COLUMNS, keep_default_na=False, na_values={"loss": ["nan"]})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.file} can't be read: {error}") from error
        if list(rows.columns) != list(COLUMNS):
            raise ValueError(f"{self.file}: its columns must be {','.join(COLUMNS)}")
        return rows

    def write(self, rows: pd.DataFrame) -> None:
        """Replace the file."""
        atomic_write(self.file, rows.to_csv(index=False, float_format="%.4f", na_rep="nan", lineterminator="\n"))

    def add(self, new: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, each in place of an earlier one of the same identity."""
        rows = pd.concat([self.read(), pd.DataFrame(new)[list(COLUMNS)].astype(COLUMNS)])
        self.write(rows.drop_duplicates(IDENTITY, keep="last"))

    def drop_evaluations(self, recipe: str, machine: str) -> None:
        """Remove the rows of test-time augmentation and ensembles, whose networks are no longer those of the rows."""
        rows = self.read()
        self.write(rows[is_plain(rows) | (rows.recipe != recipe) | (rows.machine != machine)])

    def missing(self, tasks: Sequence[Task], machines: Mapping[Hardware, str]) -> list[Task]:
        """Return the tasks without a row of this machine.

        Args:
            tasks: in their order.
            machines: the names of this machine in rows, by hardware.
        """
        rows = self.read()
        plain = rows[is_plain(rows)]
        known = set(zip(plain.recipe, plain.variant, plain.seed, plain.split, plain.machine, strict=True))
        return [
            task
            for task in tasks
            if (task.recipe, task.variant, task.seed, task.split, machines[task.hardware]) not in known
        ]


def is_plain(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are of one network without test-time augmentation."""
    return (rows.runs == 1) & (rows.tta == "none")
