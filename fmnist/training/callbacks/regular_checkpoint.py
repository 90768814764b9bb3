"""Checkpoints within an epoch."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


def between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a training can be resumed exactly from a checkpoint after this batch of an epoch.

    Accumulated gradients are in no checkpoint, and after the last batch of an epoch its own checkpoint follows.
    """
    stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return stepped and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class RegularCheckpoint(Checkpoint):
    """Saves a checkpoint after every n-th step, or when some minutes have passed since the last one.

    Args:
        file: where the state is saved.
        every_n_steps: n; None for none.
        every_minutes: minutes; None for none.
    """

    def __init__(self, file: Path, every_n_steps: int | None, every_minutes: float | None) -> None:
        self.file = file
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if between_steps(trainer, batch_idx) and self._due(trainer):
            trainer.save_checkpoint(self.file)
            self._saved = time.monotonic()

    def _due(self, trainer: Trainer) -> bool:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            return True
        if not self.every_minutes:
            return False
        due = time.monotonic() - self._saved >= 60 * self.every_minutes
        return trainer.strategy.reduce_boolean_decision(due, all=False) if trainer.world_size > 1 else due
