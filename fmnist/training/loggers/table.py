"""A table of every logged value."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from fmnist.training.loggers.base import Place, TrackerLogger


class Csv(TrackerLogger, CSVLogger):
    """Lightning's table of every logged value, csv/metrics.csv in the run folder."""

    def __init__(self, place: Place) -> None:
        folder = place.folder / "csv"
        rows = list(_rows(folder / "metrics.csv", place.first_step))
        shutil.rmtree(folder, ignore_errors=True)  # in which Lightning would write no second time
        super().__init__(place.folder, name=folder.name, version="", flush_logs_every_n_steps=1)
        self.experiment.metrics = rows

    @property
    def tracker_id(self) -> str | None:
        return None


def _rows(file: Path, first_step: int | None) -> Iterator[dict[str, str]]:
    """Yield the rows of a table before the step at which the training is resumed."""
    if not file.is_file():
        return
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if first_step is None or int(row["step"] or 0) < first_step:
                yield {name: value for name, value in row.items() if value}
