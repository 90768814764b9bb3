"""The progress bar of the terminal."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich import get_console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn

from fmnist.plotting.terminal import PROGRESS_THEME, shows_progress
from fmnist.training.classifier import Classifier

BATCHES = 20  # between two lines of a notebook's bar
SHOWN_EVERY = 0.25  # seconds: drawing the bar after each batch takes longer than the step of a small network


class Progress(RichProgressBar):
    """Lightning's progress bar with loss and accuracy of the epoch so far; the line of the epoch replaces it."""

    def __init__(self) -> None:
        super().__init__(round(1 / SHOWN_EVERY), leave=False, console_kwargs={"theme": PROGRESS_THEME})
        self._shown = 0.0

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        # Lightning's take more than 80 columns, where the metrics wrap.
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=15),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.progress is not None
        self.progress.live.transient = True  # `leave=False` leaves the last epoch's

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._shown >= SHOWN_EVERY:
            self._shown = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        assert isinstance(pl_module, Classifier)
        loss, accuracy = pl_module.metrics("train").so_far()
        return {"loss": f"{loss:.4f}", "accuracy": f"{accuracy:.2%}"}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"  # counted from 1, as everywhere else


def progress_bar() -> ProgressBar | None:
    """Return the progress bar for a terminal or a notebook; None where the output goes to a file."""
    if shows_progress(sys.stdout):
        return Progress()
    # Rich draws in notebooks only with ipywidgets.
    return TQDMProgressBar(refresh_rate=BATCHES) if get_console().is_jupyter else None
