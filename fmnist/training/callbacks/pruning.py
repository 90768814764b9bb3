"""Pruning: the early end of a training whose metric is worse than that of others."""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class TrainingPruned(Exception):  # noqa: N818 (not an error)
    """A training was ended early because its metric was too bad."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}")


class Pruning(Checkpoint):
    """Asks after each epoch with a validation whether to end the training. (A `Checkpoint`, as `History` is one.)

    Args:
        monitor: the metric to pass on.
        should_prune: takes the number of finished epochs and the metric's value; True ends the training.

    Raises:
        TrainingPruned: from the training, if it was ended.
    """

    def __init__(self, monitor: str, should_prune: Callable[[int, float], bool]) -> None:
        self.monitor = monitor
        self.should_prune = should_prune
        self._validated = False  # in this epoch: Lightning keeps the metric of the last validation

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._validated and self.should_prune(epoch, trainer.callback_metrics[self.monitor].item()):
            raise TrainingPruned(epoch)
        self._validated = False
