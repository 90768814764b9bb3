"""Ctrl-C between two batches instead of in the middle of one."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class TrainingInterrupted(Exception):  # noqa: N818 (it is no error)
    """The person pressed Ctrl-C; the last checkpoint holds everything up to the last batch."""


class Interruption(Callback):
    """On the first Ctrl-C finishes the step, saves a checkpoint and ends the training; on the second stops at once.

    SIGTERM, by which clusters end jobs, is the same. Several processes end after the same step, whichever was asked.
    In the last step of an epoch it lets the epoch be finished, whose own checkpoint is then the last.

    Args:
        checkpoint: where the state is saved.

    Raises:
        TrainingInterrupted: from the training, once the checkpoint is complete.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Signals belong to the main thread: a training in another one can't be interrupted by them.
        if threading.current_thread() is threading.main_thread():
            self._previous = {name: signal.signal(name, self._on_signal) for name in (signal.SIGINT, signal.SIGTERM)}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.info("interrupted: saving a checkpoint after this step (Ctrl-C again stops at once)")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Gradients that are still being accumulated are in no checkpoint.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self._agreed(trainer):
            trainer.save_checkpoint(self.checkpoint)
            raise TrainingInterrupted

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._agreed(trainer):
            raise TrainingInterrupted

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()
        if self._agreed(trainer):
            raise TrainingInterrupted

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _agreed(self, trainer: Trainer) -> bool:
        """Whether any process was asked to end: all of them ask at the same time."""
        if trainer.world_size > 1:
            self.requested = trainer.strategy.reduce_boolean_decision(self.requested, all=False)
        return self.requested

    def _restore(self) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)
        self._previous = {}
