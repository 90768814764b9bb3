"""What the network predicts for each training image, told to a loader that keeps it."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from fmnist.data.sample_stats import SampleStatsLoader


class RecordSampleStats(Callback):
    """Tells a `SampleStatsLoader` the logits of each training batch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loader = trainer.train_dataloader
        if isinstance(loader, SampleStatsLoader):  # not where a few batches are overfitted
            loader.record(batch_idx, outputs["logits"], batch[1])
