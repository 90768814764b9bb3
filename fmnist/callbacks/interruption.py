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

    In the last step of an epoch it lets the epoch be finished, whose own checkpoint is then the last.

    Args:
        checkpoint: where the state is saved.

    Raises:
        TrainingInterrupted: from the training, once the checkpoint is complete.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.requested = False
        self._previous: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Signals belong to the main thread: a training in another one can't be interrupted by them.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)

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
        if self.requested and stepped and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.checkpoint)
            raise TrainingInterrupted

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.requested:
            raise TrainingInterrupted

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()
        if self.requested:
            raise TrainingInterrupted

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
