"""Everything that one training needs, from the config as conf/train.yaml composes it."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from fmnist.config.callbacks import build_callbacks
from fmnist.config.checks import check_loss, check_monitor, check_parts
from fmnist.config.errors import one_line
from fmnist.config.instantiate import build, plain_config
from fmnist.config.trackers import build_trackers
from fmnist.config.trainer import build_evaluation_trainer, build_trainer, hardware_precision
from fmnist.config.validation import check_arguments
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.datasets.base import ImageDataset
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.models.by_name import NetworkByName
from fmnist.runs import checkpoints
from fmnist.runs.checkpoints import AtomicCheckpointIO
from fmnist.runs.run import Run
from fmnist.training import schedules
from fmnist.training.callbacks import (
    Divergence,
    History,
    Interruption,
    KeepCheckpoint,
    LastCheckpoint,
    Pictures,
    RandomStates,
    RecordSampleStats,
    RegularCheckpoint,
    RunConfig,
    StepLoss,
    progress_bar,
)
from fmnist.training.classifier import Classifier
from fmnist.training.compilation import check_compiler, check_cuda_graph
from fmnist.training.cuda_graph import ReplayedNetwork
from fmnist.training.metric_names import direction
from fmnist.training.speed import run_network, use_in_training
from fmnist.training.strategies import SummedMetrics
from fmnist.training.tensorboard import RunLogger

DOUBLE = ("64", "64-true")
"""Lightning's names of double precision."""


@dataclass
class Training:
    """The objects that take part in one training."""

    run: Run
    config: dict[str, Any]
    """The resolved config that all of it was built from, as plain values."""
    classifier: Classifier
    datamodule: ImageDataModule
    trainer: Trainer
    evaluation_trainer: Callable[[], Trainer]
    """Makes a Trainer of the same device and precision that logs and keeps nothing."""
    history: History
    metrics: dict[str, Any] = field(default_factory=dict)
    """What metrics.json holds so far."""


def build_training(
    cfg: DictConfig, run: Run, first_step: int | None = None, extra_callbacks: Sequence[Callback] = ()
) -> Training:
    """Build everything that one training needs. Nothing is read or written, so that invalid input shows at once.

    Args:
        cfg: as conf/train.yaml composes it.
        run: where the training's files go.
        first_step: the optimizer step at which a resumed training begins: TensorBoard's events from there on are
            dropped. None in a new folder.
        extra_callbacks: called after the table of the epochs is written, and before the checkpoints are.

    Raises:
        ValueError: naming the key that asks for something impossible.
    """
    seed_everything(cfg.seed, verbose=False)
    datamodule = build_datamodule(cfg)
    classifier = build_classifier(cfg, datamodule.dataset)
    if isinstance(classifier.network, NetworkByName) and classifier.network.pretrained and not first_step:
        classifier.network.load_pretrained()  # later, a checkpoint has the weights
    classifier.log_train_epochs = False  # the history does
    check_monitor(cfg, datamodule.dataset)
    check_loss(cfg, classifier.loss, datamodule.augment, datamodule.dataset)
    history = History(run.history_file, datamodule.dataset.classes)
    bar = progress_bar() if cfg.trainer.enable_progress_bar else None
    config = resolved_config(cfg, datamodule)
    callbacks: list[Callback] = [
        *build_callbacks(cfg),
        RunConfig(config, datamodule.dataset),
        RandomStates(cfg.seed),
        *([Divergence()] if cfg.stop_on_nan else []),
        *([RecordSampleStats()] if datamodule.needs_predictions else []),
        SummedMetrics(),
        StepLoss(),
        LearningRateMonitor(logging_interval="step"),
        *([build("pictures", cfg.pictures, Pictures)] if cfg.pictures else []),
        history,
        *extra_callbacks,
        *build_checkpointing(cfg, run),
        Interruption(run.last_checkpoint),
        *([bar] if bar else []),
    ]
    loggers = [RunLogger(run.folder, run.config_file, first_step), *build_trackers(cfg, run, first_step)]
    io = AtomicCheckpointIO({run.last_checkpoint: run.previous_checkpoint})
    trainer = build_trainer(
        cfg.trainer, progress=bar is not None, callbacks=callbacks, logger=loggers, checkpoint_io=io
    )
    check_parts(cfg, trainer)
    accelerate(cfg, classifier, trainer)
    return Training(
        run, config, classifier, datamodule, trainer, functools.partial(build_evaluation_trainer, cfg), history
    )


def resolved_config(cfg: DictConfig, datamodule: ImageDataModule) -> dict[str, Any]:
    """Return the config with what this machine and this folder make of it, so that it gives the same elsewhere."""
    config = plain_config(cfg)
    if datamodule.root is not None:
        config["data"]["root"] = str(datamodule.root.absolute())
    if datamodule.exclude is not None:
        config["data"]["exclude"] = str(Path(datamodule.exclude).absolute())
    if cfg.trainer.precision == "auto":
        config["trainer"]["precision"] = hardware_precision(cfg.trainer.accelerator)
    return config


def accelerate(cfg: DictConfig, classifier: Classifier, trainer: Trainer) -> None:
    """Let the classifier train a compiled network, or one that is replayed from a CUDA graph, where that is asked for.

    Raises:
        ValueError: if the machine or another key doesn't allow it.
    """
    device = trainer.strategy.root_device.type
    compiled = bool(cfg.get("compile"))  # older runs haven't got the keys
    if compiled:
        check_compiler(device)
        # Torch gives up on a function that it has compiled 8 times: earlier trainings of this process mustn't count.
        torch.compiler.reset()
        use_in_training(classifier, torch.compile(run_network))
    if cfg.get("cuda_graph"):
        check_cuda_graph(device, trainer.world_size, trainer.accumulate_grad_batches, compiled)
        use_in_training(classifier, ReplayedNetwork())


def build_classifier(
    cfg: DictConfig, dataset: DatasetInfo = FASHION_MNIST, checkpoint: dict[str, Any] | None = None
) -> Classifier:
    """Build network, loss, optimizer and schedule; each is tried once before any data are read.

    Args:
        cfg: the config.
        dataset: whose images are classified.
        checkpoint: the one whose weights must fit the network.
    """
    network = build_network(cfg.model, dataset, checkpoint)
    loss = build("loss", cfg.loss, nn.Module)
    optimizer = build("optimizer", cfg.optimizer, Optimizer, partly=True)
    schedule = build("scheduler", cfg.scheduler, schedules, partly=True)
    trials: dict[str, Callable[[], Any]] = {
        "optimizer": lambda: optimizer([nn.Parameter(torch.zeros(1))]),
        "scheduler": lambda: schedule(0, 1),
    }
    for group, trial in trials.items():
        try:
            trial()
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{group}: {one_line(error)}") from error
    classifier = Classifier(network, loss, optimizer, schedule, classes=dataset.classes)
    # Lightning does it after it has loaded a checkpoint, whose weights would have gone through single precision.
    return classifier.double() if str(cfg.trainer.get("precision")) in DOUBLE else classifier


def build_network(node: DictConfig, dataset: DatasetInfo, checkpoint: dict[str, Any] | None = None) -> nn.Module:
    """Build the network, first without memory for its weights, so that none is too large.

    Raises:
        ValueError: if the machine has too little memory, or the weights of the checkpoint don't fit.
    """
    parts: dict[str, Any] = {"image_shape": dataset.image_shape, "num_classes": len(dataset.classes)}
    statistics = {"mean": dataset.mean, "std": dataset.std}  # for networks with a normalisation of their own
    with torch.device("meta"):
        sketch: nn.Module = build("model", node, nn.Module, offered=statistics, **parts)
    if checkpoint:
        checkpoints.restore_network(sketch, checkpoint, assign=True)
    needed = sum(weights.nbytes for weights in sketch.state_dict().values())
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed  # Windows
    if needed > there:
        raise ValueError(
            f"model: its weights need {needed / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}"
        )
    network: nn.Module = build("model", node, nn.Module, offered=statistics, **parts)
    return network


def build_datamodule(cfg: DictConfig) -> ImageDataModule:
    """Build the data module, with the augmentation and the order of images that the seed gives.

    The node `data` has the arguments of the dataset's class, which is its `_target_`, and those of the data module.
    """
    augment = build("augment", cfg.augment, Augmentation)
    source = build_dataset(cfg.data)
    own = inspect.signature(ImageDataModule).parameters.keys()
    arguments = {key: value for key, value in plain_config(cfg.data).items() if key in own}
    check_arguments("data", ImageDataModule, arguments)
    try:
        return ImageDataModule(source, augment, seed=cfg.seed, **arguments)
    except ValueError as error:
        raise ValueError(f"data: {one_line(error)}") from error


def build_dataset(node: DictConfig) -> ImageDataset:
    """Build the dataset of a node `data`, which may also have arguments of the data module."""
    own = inspect.signature(ImageDataModule).parameters.keys()
    others = [str(key) for key in node if key not in own]
    dataset: ImageDataset = build("data", OmegaConf.masked_copy(node, others), ImageDataset)
    return dataset


def build_checkpointing(cfg: DictConfig, run: Run) -> list[Callback]:
    """Build the callbacks that keep the last checkpoint, the best one, and those within epochs."""
    # The best one after each validation, which need not come in each epoch; the last one when its epoch is complete.
    last: list[Callback] = [LastCheckpoint(run.last_checkpoint)]
    steps, minutes = cfg.checkpoint_every_n_steps, cfg.checkpoint_every_minutes
    if steps or minutes:
        last.append(RegularCheckpoint(run.last_checkpoint, steps, minutes))
    if not cfg.data.val_size:
        return last
    watched = {"monitor": cfg.monitor, "mode": direction(cfg.monitor)}
    return [KeepCheckpoint(run.best_checkpoint, save_on_train_epoch_end=False, **watched), *last]
