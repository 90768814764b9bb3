"""Checkpoints that say what they are of."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from fmnist.checkpoints import CONFIG_KEY


class RunConfig(Callback):
    """Puts the run's resolved config into each checkpoint.

    Args:
        config: plain values.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.config
