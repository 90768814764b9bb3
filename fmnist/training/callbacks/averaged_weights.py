"""An exponential moving average of the weights, validated and kept instead of the last ones."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from fmnist.runs.checkpoints import CURRENT_KEY, NETWORK

AVERAGING_KEY = "averaging_state"  # Lightning's, for how many weights have been averaged


class AveragedWeights(WeightAveraging):
    """Validates, keeps and ends with an exponential moving average of the weights; the training itself doesn't use it.

    Each step moves the average towards the weights by 1 - `decay_after(n, decay)`. The statistics of batch norm are
    averaged too, its counts are copied. A checkpoint holds the average as the network's weights, and the weights that
    the training continues with under another key.
    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.

    Lightning's own callback saves the sums of the metrics as they were at the beginning, and asks for the device before
    it is known. A later start isn't offered, as Lightning then validates the initial weights (its issue 21724).

    Args:
        decay: the largest share that the average keeps of itself in a step.
    """

    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.999) -> None:
        super().__init__(multi_avg_fn=self._move)
        self.decay = decay

    @torch.no_grad()
    def _move(self, averages: list[Tensor], current: list[Tensor], _: Any) -> None:
        """Move averages, all of one dtype, towards the current values."""
        assert self._average_model is not None
        if averages[0].is_floating_point():
            share = 1 - decay_after(int(self._average_model.n_averaged), self.decay)
            torch._foreach_lerp_(averages, current, share)
        else:
            torch._foreach_copy_(averages, current)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)
        # On the CPU, as reading a number on a GPU would wait for the device in each step.
        self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        current, averaged = checkpoint[CURRENT_KEY], checkpoint["state_dict"]
        names = [name for name in current if name.startswith(NETWORK)]
        checkpoint["state_dict"] = current | {name: averaged[name] for name in names}
        checkpoint[CURRENT_KEY] = {name: current[name] for name in names}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        current = checkpoint.get(CURRENT_KEY)
        if not isinstance(current, dict) or not isinstance(checkpoint.get(AVERAGING_KEY), dict):
            raise ValueError("the checkpoint holds no weights besides the averaged ones to continue with")
        try:
            state = checkpoint["state_dict"]
            super().on_load_checkpoint(trainer, pl_module, {**checkpoint, CURRENT_KEY: state | current})
        except RuntimeError as error:
            message = " ".join(str(error).split())
            raise ValueError(f"the weights to continue with don't fit the network: {message}") from error


def decay_after(averaged: int, most: float) -> float:
    """Return the share that an average of so many weights keeps of itself when the next are added; it grows to `most`.

    Until then the average is of about the last tenth of all steps, in a training of any length.
    Source: `num_updates` of https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    """
    return min(most, (1 + averaged) / (10 + averaged))


@contextlib.contextmanager
def as_validated(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Give the network the averaged weights, where there are any, as in a validation within a training."""
    averaging = [callback for callback in trainer.callbacks if isinstance(callback, AveragedWeights)]  # type: ignore[attr-defined]
    for callback in averaging:
        callback.on_validation_epoch_start(trainer, pl_module)
    try:
        yield
    finally:
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, pl_module)
