"""Records of a training: the metrics of each epoch, the loss of single steps, the predictions for each image."""

import csv
import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from fmnist.data.sample_stats import SampleStatsLoader
from fmnist.runs.files import atomic_write
from fmnist.training.distributed import gather
from fmnist.training.metric_names import metric_names
from fmnist.training.strategies import batch_weight

log = logging.getLogger(__name__)

Row = dict[str, float | int | str]


class History(Checkpoint):
    """Keeps a row for each epoch, the untrained network being epoch 0, and writes them to a CSV file.

    It also logs the training metrics of the epochs: Lightning would write them after the epoch's checkpoint, and a run
    that is killed between the two would lose them. The rows are part of the checkpoints, so that the table of a resumed
    run has no gap and no epoch twice. (It is a `Checkpoint` because Lightning calls only those after the module has
    logged the epoch's metrics.)
    """

    def __init__(self, file: Path, classes: Sequence[str]) -> None:
        self.file = file
        self.classes = classes
        self.rows: list[Row] = []
        self.seconds = 0.0  # of the epochs, validation included, over all parts of a resumed run
        self.batch_seconds = 0.0  # of the training batches alone, without validation, checkpoints and pictures
        self.images = 0  # trained on by all processes, counted in each epoch
        self.epoch_before = (0.0, 0)  # `batch_seconds` and `images` when the epoch began
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
        return int(self.last.get("epoch", 0))

    @property
    def last(self) -> Row:
        """The newest row."""
        return self.rows[-1] if self.rows else {}

    def add_untrained(self, metrics: dict[str, float]) -> None:
        self.rows.append({"epoch": 0, "step": 0, "seconds": 0.0, **metrics})
        self._write()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.rows:
            self._write()  # without the rows since the checkpoint from which the training is resumed

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
        logged = metric_names("train", self.classes)
        curves = {name: measured[name].item() for name in logged if name in measured}
        curves |= {"train/images_per_second": images / max(seconds, 1e-9), "epoch": trainer.current_epoch}
        # The step at which Lightning logs those of validation. The point of an incomplete epoch comes at the first step
        # that isn't done: where the run is resumed, it is dropped.
        step = trainer.global_step - int(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
        for logger in trainer.loggers:
            logger.log_metrics(curves, step)
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
    """Return a row as a line that fits a terminal of 80 columns."""
    epoch = f"epoch {row['epoch']}/{epochs}" if epochs > 0 else f"epoch {row['epoch']}"
    parts = []
    for metric, form in (("loss", ".4f"), ("accuracy", ".2%")):
        validated = f" (val {row[f'val/{metric}']:{form}})" if f"val/{metric}" in row else ""
        parts.append(f"{metric} {row[f'train/{metric}']:{form}}{validated}")
    return f"{epoch}: {', '.join(parts)}, {row['seconds']:.1f} s"


class StepLoss(Callback):
    """Logs train/loss_step: each `trainer.log_every_n_steps` the mean loss of the batches since the last time.

    `self.log` would write it after the step's checkpoint: a run that is killed between the two would lose it. What each
    process has summed is a part of the checkpoints, so that a resumed run logs the same means.
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._batches = 0
        self._step = 0
        self._world_size = 1
        self._restored = [0.0]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._world_size = trainer.world_size

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        sums = self._restored
        same = len(sums) == self._world_size
        self._sum = sums[trainer.global_rank] if same else sum(sums) / len(sums)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if weight := batch_weight(trainer, batch_idx):
            # Lightning has divided the loss by the number of batches whose gradients are added.
            self._sum = self._sum + outputs["loss"].float() * (weight * trainer.accumulate_grad_batches)
        self._batches += 1
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            loss = self._mean(trainer)
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": loss, "epoch": trainer.current_epoch}, trainer.global_step - 1)
            self._sum, self._batches = 0.0, 0

    def _mean(self, trainer: Trainer) -> float:
        """Return the mean loss over the batches, and over all processes."""
        mean = torch.as_tensor(self._sum / max(self._batches, 1), device=trainer.strategy.root_device)
        return float(trainer.strategy.reduce(mean, reduce_op="mean") if trainer.world_size > 1 else mean)

    def state_dict(self) -> dict[str, Any]:
        own = float(self._sum)
        return {"sums": gather(own) if self._world_size > 1 else [own], "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["sums"] if "sums" in state_dict else [state_dict["sum"]]  # of an older version
        self._batches = state_dict["batches"]


class RecordSampleStats(Callback):
    """Tells a `SampleStatsLoader` the logits of each training batch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loader = trainer.train_dataloader
        if isinstance(loader, SampleStatsLoader):  # not where a few batches are overfitted
            loader.record(batch_idx, outputs["logits"], batch[1])
