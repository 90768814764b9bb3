"""The training loss of single steps as a curve."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from fmnist.training.distributed import batch_weight


class StepLoss(Callback):
    """Logs train/loss_step: each `trainer.log_every_n_steps` the mean loss of the batches since the last time.

    `self.log` would write it after the step's checkpoint: a run that is killed between the two would lose it. What has
    been summed is a part of the checkpoints, so that a resumed run logs the same means.
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._batches = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if weight := batch_weight(trainer, batch_idx):
            # Lightning has divided the loss by the number of batches whose gradients are added.
            self._sum = self._sum + outputs["loss"].float() * (weight * trainer.accumulate_grad_batches)
        self._batches += 1
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            loss = self._mean(trainer)
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": loss, "epoch": trainer.current_epoch}, trainer.global_step - 1)
            self._sum, self._batches = 0.0, 0

    def _mean(self, trainer: Trainer) -> float:
        """Return the mean loss over the batches, and over all processes."""
        mean = torch.as_tensor(self._sum / max(self._batches, 1), device=trainer.strategy.root_device)
        return float(trainer.strategy.reduce(mean, reduce_op="mean") if trainer.world_size > 1 else mean)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": float(self._sum), "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sum, self._batches = state_dict["sum"], state_dict["batches"]
