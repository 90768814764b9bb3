"""The end of a training that is not worth its time."""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class TrainingPruned(Exception):  # noqa: N818 (it is no error)
    """Somebody who watched the training saw no hope for it."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}")


class Pruning(Checkpoint):
    """Asks after each epoch with a validation whether the training is hopeless. (A `Checkpoint` as `History` is one.)

    Args:
        monitor: the metric to tell.
        hopeless: gets the number of complete epochs and the metric's value.

    Raises:
        TrainingPruned: from the training, if it is.
    """

    def __init__(self, monitor: str, hopeless: Callable[[int, float], bool]) -> None:
        self.monitor = monitor
        self.hopeless = hopeless
        self._validated = False  # in this epoch: Lightning keeps the metric of the last time

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._validated and self.hopeless(epoch, trainer.callback_metrics[self.monitor].item()):
            raise TrainingPruned(epoch)
        self._validated = False
