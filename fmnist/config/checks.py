"""Checks of a training's objects against each other, before any data are read."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from omegaconf import DictConfig
from torch import nn

from fmnist.config.errors import one_line
from fmnist.config.validation import did_you_mean
from fmnist.data.augment import Augmentation
from fmnist.data.info import DatasetInfo
from fmnist.training.callbacks import AveragedWeights
from fmnist.training.metric_names import metric_names
from fmnist.training.rank_info import check_processes

COARSE = ("bf16-true", "16-true", "transformer-engine", "transformer-engine-float16")
"""Precisions of weights whose last digit is larger than a step of their average."""

UNUSED = (
    *("default_root_dir", "enable_autolog_hparams", "limit_predict_batches", "model_registry"),
    *("reload_dataloaders_every_n_epochs", "sync_batchnorm"),
)
"""Arguments of the Trainer without an effect on a run."""


def check_monitor(cfg: DictConfig, dataset: DatasetInfo) -> None:
    """Refuse a monitored metric that isn't one of the validation images: test images are for the result alone.

    Raises:
        ValueError: naming the nearest metrics.
    """
    names = metric_names("val", dataset.classes)
    if cfg.monitor not in names:
        raise ValueError(f"monitor={cfg.monitor}: is no validation metric{did_you_mean(cfg.monitor, names)}")


def check_loss(cfg: DictConfig, loss: nn.Module, augment: Augmentation, dataset: DatasetInfo) -> None:
    """Try the loss on labels as training has them: soft labels where images are mixed.

    Raises:
        ValueError: if it doesn't accept them.
    """
    classes, labels = len(dataset.classes), torch.zeros(2, dtype=torch.long)
    _, labels = augment.mixed(torch.zeros(2, *dataset.image_shape), labels, classes, torch.Generator())
    try:
        loss(torch.zeros(2, classes), labels)
    except (ValueError, TypeError, RuntimeError) as error:
        kind = "labels (N)" if labels.ndim == 1 else "soft labels (N, K), which augment.mixup and augment.cutmix make"
        raise ValueError(f"loss._target_={cfg.loss._target_}: it doesn't accept {kind}: {one_line(error)}") from error


def check_parts(cfg: DictConfig, trainer: Trainer) -> None:
    """Refuse keys that exclude each other, above all in several processes.

    Raises:
        ValueError: naming the key.
    """
    check_processes(trainer.num_devices, trainer.num_nodes)
    if unused := [name for name in UNUSED if name in cfg.trainer]:
        raise ValueError(f"trainer.{unused[0]}: must not be given, as it has no effect on a run")
    if (algorithm := cfg.trainer.get("gradient_clip_algorithm")) and not trainer.gradient_clip_val:
        raise ValueError(f"trainer.gradient_clip_algorithm={algorithm}: needs trainer.gradient_clip_val")
    if cfg.data.batch_size < trainer.world_size:
        raise ValueError(
            f"data.batch_size={cfg.data.batch_size}: must be at least {trainer.world_size}, "
            "the processes that share a batch"
        )
    if trainer.precision == "16-mixed" and trainer.gradient_clip_val and cfg.optimizer.get("fused"):
        raise ValueError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val}: with trainer.precision=16-mixed it needs "
            "optimizer.fused=false"
        )
    averages = any(isinstance(callback, AveragedWeights) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if averages and trainer.precision in COARSE:
        raise ValueError(
            f"trainer.precision={trainer.precision}: too coarse for callbacks=ema, whose average moves by less than "
            "the last digit: take bf16-mixed or 32-true"
        )
    if isinstance(trainer.strategy, FSDPStrategy) and averages:
        raise ValueError("trainer.strategy=fsdp: no process has the whole network to average: callbacks=none")
    if isinstance(trainer.strategy, FSDPStrategy) and cfg.pictures:
        raise ValueError("trainer.strategy=fsdp: no process has the whole network to draw: pictures=none")
