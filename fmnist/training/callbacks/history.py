"""The metrics of each epoch: a table on disk, a line in the terminal."""

import csv
import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from fmnist.runs.files import atomic_write
from fmnist.training.metric_names import metric_names

log = logging.getLogger(__name__)

Row = dict[str, float | int | str]


class History(Checkpoint):
    """Keeps a row for each epoch, the untrained network being epoch 0, and writes them to a CSV file.

    It also logs the training metrics of the epochs: Lightning would write them after the epoch's checkpoint, and a run
    that is killed between the two would lose them. The rows are part of the checkpoints, so that the table of a resumed
    run has no gap and no epoch twice. (It is a `Checkpoint` because Lightning calls only those after the module has
    logged the epoch's metrics.)

    Args:
        file: where the table is written after each epoch.
        classes: names of the K classes.
    """

    def __init__(self, file: Path, classes: Sequence[str]) -> None:
        self.file = file
        self.classes = classes
        self.rows: list[Row] = []
        self.seconds = 0.0
        """Wall-clock time of the training epochs, validation included, over all parts of a resumed run."""
        self.batch_seconds = 0.0
        """Wall-clock time of the training batches alone, without validation, checkpoints and pictures."""
        self.images = 0
        """Images trained on by all processes, counted in each epoch."""
        self.epoch_before = (0.0, 0)
        """`batch_seconds` and `images` when the epoch began."""
        self._last_tick = time.perf_counter()
        self._validated = False  # in this epoch: Lightning keeps the metrics of the last validation

    @property
    def images_per_second(self) -> float:
        """The rate over the whole training, without validation, checkpoints and pictures."""
        return self.images / self.batch_seconds if self.batch_seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        self._tick()
        keys = ("rows", "seconds", "batch_seconds", "images", "epoch_before")
        return {key: getattr(self, key) for key in keys}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for key, value in state_dict.items():
            setattr(self, key, value)

    @property
    def epochs(self) -> int:
        """The number of complete epochs."""
        return int(self.last.get("epoch", 0))

    @property
    def last(self) -> Row:
        """The newest row."""
        return self.rows[-1] if self.rows else {}

    def add_untrained(self, metrics: dict[str, float]) -> None:
        """Add the row of epoch 0."""
        self.rows.append({"epoch": 0, "step": 0, "seconds": 0.0, **metrics})
        self._write()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_tick = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_before = (self.batch_seconds, self.images)
        self._validated = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += trainer.train_dataloader.images_in(batch_idx)  # type: ignore[union-attr]
        self._tick(training=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tick()
        seconds, images = self.batch_seconds - self.epoch_before[0], self.images - self.epoch_before[1]
        measured = trainer.callback_metrics
        curves = {name: value.item() for name, value in measured.items() if name in metric_names("train", self.classes)}
        curves |= {"train/images_per_second": images / max(seconds, 1e-9), "epoch": trainer.current_epoch}
        for logger in trainer.loggers:
            logger.log_metrics(curves, trainer.global_step - 1)  # the step at which Lightning logs those of validation
        phases = ("train", "val") if self._validated else ("train",)
        names = [name for phase in phases for name in metric_names(phase, self.classes) if name in measured]
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "seconds": round(self.seconds, 3),
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "images_per_second": round(images / max(seconds, 1e-9), 1),
                # Lightning keeps metrics in single precision, which has seven digits.
                **{name: float(f"{measured[name].item():.7g}") for name in names},
            }
        )
        if trainer.is_global_zero:
            self._write()
        log.info(epoch_line(self.last, trainer.max_epochs or 0))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tick()

    def _tick(self, *, training: bool = False) -> None:
        """Add the time since the last call to the total, and to that of the batches if it was spent in training."""
        now = time.perf_counter()
        self.seconds += now - self._last_tick
        if training:
            self.batch_seconds += now - self._last_tick
        self._last_tick = now

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in reversed(self.rows) for name in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        atomic_write(self.file, text.getvalue())


def epoch_line(row: Row, epochs: int) -> str:
    """Return the line of an epoch for the terminal."""
    parts = [f"epoch {row['epoch']}/{epochs}" if epochs > 0 else f"epoch {row['epoch']}"]
    for phase in ("train", "val"):
        if f"{phase}/loss" in row:
            accuracy = float(row[f"{phase}/accuracy"])
            parts.append(f"{phase}: loss {row[f'{phase}/loss']:.4f}, accuracy {accuracy:.2%}")
    parts.append(f"{row['seconds']:.1f} s")
    return "  |  ".join(parts)
