"""The LightningModule: network, loss, optimizer, schedule and metrics, nothing else."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fmnist.data.sample_stats import SampleStatsLoader
from fmnist.training.cuda_graph import ReplayedNetwork
from fmnist.training.metric_names import PHASES
from fmnist.training.metrics import ClassificationMetrics

Batch = tuple[Tensor, Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Schedule = Callable[[int, int], float]
Answer = Callable[[nn.Module, Tensor], Tensor]
EXTRA_STATE = "_extra_state"  # as torch names it in `state_dict()`


class Classifier(LightningModule):
    """Trains a network to name what an image shows.

    Args:
        network: normalised images (N, C, H, W) to logits (N, K).
        loss: logits (N, K) and labels (N) to the batch's mean loss (); where images are mixed, labels are the shares of
            the classes (N, K).
        optimizer: makes the optimizer of the network's parameters.
        schedule: (step, total_steps) to the multiplier of the learning rate; see `fmnist.training.schedules`.
        classes: names of the K classes.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        # Channels last: a training step of the default network is 1.6 times as fast (2 cores, in bf16 as in float32).
        self.network = network.to(memory_format=torch.channels_last)
        self._answer_in_training: Answer = _answer
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.classes = tuple(classes)
        self._recent_loss: Tensor | float = 0.0  # no buffer, which a precision of bf16-true would round
        self._recent_batches = 0
        self._metrics = nn.ModuleDict(
            {f"{phase}_metrics": ClassificationMetrics(len(self.classes)) for phase in PHASES}
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes each hook that it calls, 60 times in a step, for which nn.Module's own takes 80 µs.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, K)."""
        answer = self._answer_in_training if self.training else _answer
        return answer(self.network, images)

    def compile_network(self) -> None:
        """Lets `forward` compile, in training alone: what is measured is what any other process measures.

        The network itself stays as it is, for the names in checkpoints, and for hooks and tracers that see its layers.
        """
        # Torch gives up where a function has been compiled 8 times: earlier trainings of this process shouldn't count.
        torch.compiler.reset()
        self._answer_in_training = torch.compile(_answer)

    def replay_network(self) -> None:
        """Lets `forward` replay on a GPU what the first training batch has recorded, in training alone."""
        self._answer_in_training = ReplayedNetwork()

    def metrics(self, phase: str) -> ClassificationMetrics:
        """Of "train", "val" or "test"."""
        metrics = self._metrics[f"{phase}_metrics"]
        assert isinstance(metrics, ClassificationMetrics)
        return metrics

    def shared_step(self, batch: Batch, phase: str) -> tuple[Tensor, Tensor]:
        """The loss () and the logits (N, K) of a batch, which also enter the metrics of its phase."""
        images, labels = batch
        logits = self(images.to(self.dtype))  # not single precision where trainer.precision says so
        # A process may have no part of a batch: the mean over nothing is NaN.
        loss: Tensor = self.loss(logits, labels) if len(labels) else logits.sum()
        self.metrics(phase).update(loss.detach(), logits.detach(), labels)
        return loss, logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, logits = self.shared_step(batch, "train")
        trainer = self.trainer
        loader = trainer.train_dataloader
        if isinstance(loader, SampleStatsLoader):
            loader.record(batch_idx, logits.detach(), batch[1])
        if trainer.world_size > 1:  # whose gradients are averaged
            loss = loss * loader.weight(batch_idx)  # type: ignore[union-attr]
        self._recent_loss = self._recent_loss + loss.detach().float()
        self._recent_batches += 1
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The logits (N, K), for the callbacks."""
        return self.shared_step(batch, "val")[1]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The logits (N, K), for the callbacks."""
        return self.shared_step(batch, "test")[1]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Each `trainer.log_every_n_steps` logs the mean loss of the batches since the last time."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every == 0:
            self._write_recent_loss()
            self._recent_loss, self._recent_batches = 0.0, 0

    def _write_recent_loss(self) -> None:
        """Not by `self.log`, which writes after the step's checkpoint: a run that is killed between would lose it."""
        trainer, loss = self.trainer, self._recent_loss / self._recent_batches
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(torch.as_tensor(loss, device=self.device), reduce_op="mean")
        for logger in trainer.loggers:
            logger.log_metrics({"train/loss_step": float(loss), "epoch": trainer.current_epoch}, trainer.global_step)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By `trainer.gradient_clip_val`, also of a fused optimizer, which Lightning refuses in mixed precisions
        because it could unscale the gradients: those of bfloat16 aren't scaled."""
        plugin = self.trainer.precision_plugin
        if gradient_clip_val is not None and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def get_extra_state(self) -> dict[str, float]:
        """The recent losses, so that a run that was cut in two logs the same means; a part of `state_dict()`."""
        return {"recent_loss": float(self._recent_loss), "recent_batches": self._recent_batches}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self._recent_loss, self._recent_batches = state["recent_loss"], int(state["recent_batches"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What several processes have summed so far is kept as one sum, which may go on in any number of them."""
        trainer = self.trainer
        if trainer.world_size == 1:
            return
        state, reduce = checkpoint["state_dict"], trainer.strategy.reduce
        summed = {name: reduce(value.clone(), reduce_op="sum") for name, value in self._sums().items()}
        mean = float(reduce(torch.tensor(float(self._recent_loss), device=self.device), reduce_op="mean"))
        if state:  # only rank zero has one where each holds a part of the network
            state |= summed
            state[EXTRA_STATE] = {**state[EXTRA_STATE], "recent_loss": mean}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The sums so far are rank zero's."""
        if not self.trainer.is_global_zero:
            state = checkpoint["state_dict"]
            state |= {name: torch.zeros_like(state[name]) for name in self._sums()}

    def _sums(self) -> dict[str, Tensor]:
        """The sums of all phases, by the names of `state_dict()`."""
        return {
            f"_metrics.{phase}_metrics.{name}": value
            for phase in PHASES
            for name, value in self.metrics(phase).states().items()
        }

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def _log_epoch(self, phase: str) -> None:
        """Logs each class by its name, as a vector would be averaged."""
        result = self.metrics(phase).compute()
        metrics = {f"{phase}/{name}": result[name] for name in ("loss", "accuracy")}
        per_class = zip(self.classes, result["accuracy_per_class"], strict=True)
        metrics |= {f"{phase}/accuracy_per_class/{name}": accuracy for name, accuracy in per_class}
        # Those of training Lightning would write after the epoch's checkpoint: the table of the epochs does it before.
        self.log_dict(metrics, logger=False if phase == "train" else None)

    def on_train_epoch_start(self) -> None:
        self.metrics("train").reset()

    def on_validation_epoch_start(self) -> None:
        self.metrics("val").reset()

    def on_test_epoch_start(self) -> None:
        self.metrics("test").reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.network.parameters())
        total = self.trainer.estimated_stepping_batches
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, total))  # type: ignore[arg-type]
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "learning_rate"},
        }


def _answer(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits
