"""The LightningModule: network, loss, optimizer, schedule and metrics."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fmnist.training.metric_names import PHASES, metric_names, scalar_names
from fmnist.training.metrics import ClassificationMetrics
from fmnist.training.schedules import constant
from fmnist.training.speed import QuickHookNames

Batch = tuple[Tensor, Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Schedule = Callable[[int, int], float]


class Classifier(QuickHookNames):
    """Trains a network to classify images; works with any Trainer and any DataLoader of (images, labels).

    Args:
        network: maps normalised images (N, C, H, W) to logits (N, K).
        loss: maps logits (N, K) and labels (N) to the mean loss () of the batch; labels may be soft labels (N, K).
        optimizer: makes the optimizer of the network's parameters, but for those that need no gradient.
        schedule: maps (step, total_steps) to the multiplier of the learning rate; see `fmnist.training.schedules`.
        classes: names of the K classes.

    Example::

        classifier = Classifier(CNN((1, 28, 28), 10, channels=[32, 64]), classes=dataset.classes)
        Trainer(max_epochs=1).fit(classifier, DataLoader(dataset, batch_size=128))
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = torch.optim.AdamW,
        schedule: Schedule = constant,
        *,
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        # Channels last: a training step of three convolutions is 1.6 times as fast (2 cores, in bf16 as in float32).
        self.network = network.to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss() if loss is None else loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.classes = tuple(classes)
        self.log_train_epochs = True  # false if a callback logs the epochs' training metrics, earlier than Lightning
        self._metrics = nn.ModuleDict({f"{phase}_metrics": ClassificationMetrics(len(classes)) for phase in PHASES})

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", **_: Any
    ) -> "Classifier":
        """Return the classifier of a checkpoint: network, loss and optimizer of its config, with its weights.

        Nothing that is stored in the file is run: weights are tensors, and each `_target_` is one of an allow-list.

        Raises:
            ValueError: if there is no such checkpoint, or it is damaged or not one of this project.
        """
        from fmnist.config.restore import restore  # which builds classifiers

        return restore(Path(checkpoint_path), accelerator="cpu").classifier.to(map_location)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def metrics(self, phase: str) -> ClassificationMetrics:
        """Return the metrics of "train", "val" or "test"."""
        metrics = self._metrics[f"{phase}_metrics"]
        assert isinstance(metrics, ClassificationMetrics)
        return metrics

    def shared_step(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor]:
        """Return the loss () and the logits (N, K) of a batch, and add them to the metrics of the phase."""
        images, labels = batch
        logits = self(images.to(self.dtype))  # bfloat16 or float64 where trainer.precision says so
        loss: Tensor = self.loss(logits, labels)
        self.metrics(phase).update(loss.detach(), logits.detach(), labels)
        return loss, logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss, logits = self.shared_step(batch, "train")
        return {"loss": loss, "logits": logits.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.shared_step(batch, "val")[1]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.shared_step(batch, "test")[1]

    def on_train_epoch_start(self) -> None:
        self.metrics("train").reset()

    def on_validation_epoch_start(self) -> None:
        self.metrics("val").reset()

    def on_test_epoch_start(self) -> None:
        self.metrics("test").reset()

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def _log_epoch(self, phase: str) -> None:
        """Log the metrics of an epoch, the accuracy of each class by its name: `self.log` would average a vector."""
        result = self.metrics(phase).compute()
        values = [*(result[name] for name in scalar_names(len(self.classes))), *result["accuracy_per_class"]]
        metrics = dict(zip(metric_names(phase, self.classes), values, strict=False))  # many classes have no names
        self.log_dict(metrics, logger=None if phase != "train" or self.log_train_epochs else False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer([weights for weights in self.network.parameters() if weights.requires_grad])
        total: Any = self.trainer.estimated_stepping_batches
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "learning_rate"},
        }
