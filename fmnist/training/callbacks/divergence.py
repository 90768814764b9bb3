"""Early ends of a training: its loss is no longer finite, or worse than that of others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from fmnist.runs.checkpoints import CURRENT_KEY, NETWORK

SYNCHRONOUS = {"cpu"}  # devices whose values can be read without waiting


class TrainingDiverged(ValueError):  # noqa: N818 (usually the fault of a setting)
    """The loss, or a weight, became infinite or NaN."""


@dataclass(eq=False)
class Divergence(Callback):
    """Stops before the step whose loss isn't finite, and prevents checkpoints with a weight that isn't.

    On a GPU, where reading the loss would wait for the device in each step, it checks whenever the loss is logged
    (`trainer.log_every_n_steps`) and at the end of each epoch; the step that it names is the right one all the same.

    Of several processes rank zero checks; it sees what another process does to the weights in the next step.

    Raises:
        TrainingDiverged: with the step and the learning rate.
    """

    _first: Tensor | None = field(default=None, init=False)  # step () whose loss isn't finite; -1 while there is none

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not trainer.is_global_zero:
            return
        step, loss = trainer.global_step, loss.detach()
        if loss.device.type in SYNCHRONOUS:
            if not math.isfinite(loss.item()):
                self._stop(trainer, f"the loss became {loss.item()}", step)
            return
        if self._first is None:
            self._first = torch.full((), -1, device=loss.device)
        self._first = torch.where((self._first < 0) & ~loss.isfinite(), step, self._first)
        if (step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)
        states = [checkpoint["state_dict"], checkpoint.get(CURRENT_KEY, {})] if trainer.is_global_zero else []
        for name, value in (item for state in states for item in state.items()):
            if isinstance(value, Tensor) and not value.isfinite().all():
                self._stop(trainer, f"{name.removeprefix(NETWORK)} became infinite or NaN", trainer.global_step - 1)

    def _check(self, trainer: Trainer) -> None:
        if self._first is not None and (step := int(self._first)) >= 0:
            self._stop(trainer, "the loss became infinite or NaN", step)

    def _stop(self, trainer: Trainer, what: str, step: int) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise TrainingDiverged(
            f"{what} in step {step + 1} (epoch {trainer.current_epoch + 1}), at a learning rate of {rate:.3g}"
        )


class TrainingPruned(Exception):  # noqa: N818 (not an error)
    """A training was ended early because its metric was too bad."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}")


@dataclass(eq=False)
class Pruning(Checkpoint):
    """Asks after each epoch with a validation whether to end the training. (A `Checkpoint`, as `History` is one.)

    Args:
        monitor: name of the metric that decides.
        should_prune: takes the number of finished epochs and the metric's value; True ends the training.

    Raises:
        TrainingPruned: from the training, if it was ended.
    """

    monitor: str
    should_prune: Callable[[int, float], bool]
    _validated: bool = field(default=False, init=False)  # in this epoch: Lightning keeps the last validation's metric

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._validated and self.should_prune(epoch, trainer.callback_metrics[self.monitor].item()):
            raise TrainingPruned(epoch)
        self._validated = False
