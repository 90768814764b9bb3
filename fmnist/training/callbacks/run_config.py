"""Checkpoints that hold what is needed to build their network."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from fmnist.data.info import DatasetInfo
from fmnist.runs.checkpoints import CONFIG_KEY, DATASET_KEY


class RunConfig(Callback):
    """Puts the resolved config and the dataset's facts into each checkpoint, and flushes the loggers before.

    Args:
        config: plain values.
        dataset: of the network.
    """

    def __init__(self, config: dict[str, Any], dataset: DatasetInfo) -> None:
        self.config = config
        self.dataset = dataset

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.config
        checkpoint[DATASET_KEY] = self.dataset.to_dict()
        for logger in trainer.loggers:
            logger.save()
