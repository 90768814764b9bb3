"""Ctrl-C, and what a system ends processes by, between two batches instead of in the middle of one."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from fmnist.training.callbacks.regular_checkpoint import between_steps

log = logging.getLogger(__name__)


SYSTEMS = {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP}
"""By which clusters end or announce the end of a job, and terminals that of what runs in them."""


class TrainingInterrupted(Exception):  # noqa: N818 (it is no error)
    """The person pressed Ctrl-C, or the system asked for the end.

    The last checkpoint holds everything up to the last batch.

    Args:
        by_system: it was the system, which may start the training again.
    """

    def __init__(self, by_system: bool) -> None:
        super().__init__(by_system)
        self.by_system = by_system


class Interruption(Checkpoint):
    """On the first Ctrl-C finishes the step, saves a checkpoint and ends the training; on the second stops at once.

    SIGTERM, SIGUSR1 and SIGHUP, by which clusters and terminals end jobs, are the same. Several processes end after the
    same step, whichever was asked. In the last step of an epoch it lets the epoch be finished, whose own checkpoint is
    then the last. (It is a `Checkpoint` so that its turn comes after those whose state it saves.)

    Args:
        checkpoint: where the state is saved.

    Raises:
        TrainingInterrupted: from the training, once the checkpoint is complete.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.requested = False
        self.by_system = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Signals belong to the main thread: a training in another one can't be interrupted by them.
        if threading.current_thread() is threading.main_thread():
            names = SYSTEMS | {signal.SIGINT}
            if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as nohup wants it
                names -= {signal.SIGHUP}
            self._previous = {name: signal.signal(name, self._on_signal) for name in names}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested, self.by_system = True, number in SYSTEMS
        log.info("interrupted: saving a checkpoint after this step (Ctrl-C again stops at once)")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if between_steps(trainer, batch_idx) and self._agreed(trainer):
            trainer.save_checkpoint(self.checkpoint)
            raise TrainingInterrupted(self.by_system)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._agreed(trainer):
            raise TrainingInterrupted(self.by_system)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()
        if self._agreed(trainer):
            raise TrainingInterrupted(self.by_system)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _agreed(self, trainer: Trainer) -> bool:
        """Whether any process was asked to end: all of them ask at the same time."""
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
