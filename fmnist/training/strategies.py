"""Strategies and metrics of several processes that get parts of a batch of different sizes."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch import Tensor


def batch_weight(trainer: Trainer, batch_idx: int) -> float:
    """Return the weight of this process's part of a batch, with which the mean over all processes is the batch's."""
    weight = getattr(trainer.train_dataloader, "weight", None)
    return 1.0 if trainer.world_size == 1 or weight is None else float(weight(batch_idx))


class _WeightedParts:
    """Weights the loss of a process by its part of the batch, as DDP takes the mean of the gradients."""

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        trainer: Trainer = self.lightning_module.trainer  # type: ignore[attr-defined]
        weight = batch_weight(trainer, trainer.fit_loop.epoch_loop.batch_idx)
        result: Tensor = super().backward(closure_loss * weight, *args, **kwargs)  # type: ignore[misc]
        return result


class WeightedDDPStrategy(_WeightedParts, DDPStrategy):
    """DDP whose processes may have parts of a batch of different sizes."""


class WeightedFSDPStrategy(_WeightedParts, FSDPStrategy):
    """FSDP whose processes may have parts of a batch of different sizes."""


class SummedMetrics(Callback):
    """Keeps one sum of what several processes have counted in checkpoints, so that any number of them may resume."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.world_size == 1:
            return
        reduce = trainer.strategy.reduce
        sums = {name: reduce(value.clone(), reduce_op="sum") for name, value in _sums(pl_module).items()}
        if checkpoint["state_dict"]:  # with FSDP only rank zero's
            checkpoint["state_dict"] |= sums

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            for value in _sums(pl_module).values():
                value.zero_()


def _sums(pl_module: LightningModule) -> dict[str, Tensor]:
    """Return the states of all metrics, by their names in `state_dict()`."""
    from torchmetrics import Metric

    return {
        f"{path}.{name}": getattr(metric, name)
        for path, metric in pl_module.named_modules()
        if isinstance(metric, Metric)
        for name in metric._defaults
    }
