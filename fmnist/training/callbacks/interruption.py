"""Ctrl-C and the signals by which systems end processes, handled between two batches."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from fmnist.config.processes import SYSTEM_SIGNALS
from fmnist.training.callbacks.checkpointing import between_steps

log = logging.getLogger(__name__)


class TrainingInterrupted(Exception):  # noqa: N818 (it is no error)
    """The user pressed Ctrl-C, or the system asked the process to end.

    The last checkpoint holds everything up to the last batch.
    """

    def __init__(self, by_system: bool) -> None:
        super().__init__(by_system)
        self.by_system = by_system  # it may start the training again


class Interruption(Checkpoint):
    """On the first signal finishes the step, saves a checkpoint and ends the training; a second Ctrl-C stops at once.

    Handles Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP. Several processes end after the same step, whichever got the signal.
    In the last step of an epoch the epoch is finished, whose own checkpoint is then the last. (It is a `Checkpoint` so
    that it is called after the callbacks whose state it saves.)

    Raises:
        TrainingInterrupted: from the training, once the checkpoint is complete.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.requested = False
        self.by_system = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():  # which alone gets signals
            return
        handled = {name for name in SYSTEM_SIGNALS if signal.getsignal(name) != signal.SIG_IGN}  # as nohup sets it
        self._previous = {name: signal.signal(name, self._on_signal) for name in handled | {signal.SIGINT}}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self.by_system = True, number in SYSTEM_SIGNALS
            log.info("interrupted: saving a checkpoint after this step (Ctrl-C again stops at once)")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if between_steps(trainer) and self._agreed(trainer):
            trainer.save_checkpoint(self.checkpoint)
            raise TrainingInterrupted(self.by_system)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._agreed(trainer):
            raise TrainingInterrupted(self.by_system)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()
        self.on_train_epoch_start(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _agreed(self, trainer: Trainer) -> bool:
        """Return whether any process got a signal; all processes ask at the same time."""
        if trainer.world_size == 1:
            return self.requested
        agree = trainer.strategy.reduce_boolean_decision
        if not agree(self.requested, all=False):
            return False  # a signal may have come meanwhile: it counts the next time
        self.requested = True
        self.by_system = agree(self.by_system, all=False)
        return True

    def _restore(self) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)
        self._previous = {}
