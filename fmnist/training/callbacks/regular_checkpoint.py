"""Checkpoints within an epoch."""

import time
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

Steps = Annotated[int, Ge(1)]
Minutes = Annotated[float, Gt(0)]


def between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a checkpoint after this batch of an epoch lets a training go on as if nothing had been.

    Gradients that are still being accumulated are in no checkpoint, and after an epoch's last batch its own follows.
    """
    stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return stepped and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class RegularCheckpoint(Checkpoint):
    """Saves after every n-th step, or once so many minutes have passed since it last did, besides each epoch's end.

    Args:
        file: where the state is saved.
        every_n_steps: n; None for none.
        every_minutes: None for none.
    """

    def __init__(self, file: Path, every_n_steps: Steps | None, every_minutes: Minutes | None) -> None:
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
