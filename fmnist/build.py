"""The one place where a config becomes objects."""

import copy
import functools
import pkgutil
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from fmnist.arguments import check_arguments, did_you_mean
from fmnist.callbacks import History, Interruption, Progress, RandomStates, RunConfig
from fmnist.checkpoints import WholeCheckpointIO
from fmnist.classes import CLASSES, IMAGE_SHAPE
from fmnist.classifier import Classifier
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.metrics import direction, metric_names
from fmnist.runs import Run
from fmnist.training import Session

ALLOWED_TARGETS = ("fmnist.", "torch.nn.", "torch.optim.", "lightning.pytorch.")
"""Where a `_target_` may point: a config from a stranger builds nothing else."""


def build(key: str, node: DictConfig, **extra: Any) -> Any:
    """What a node of the config describes: its `_target_`, called with its other keys.

    Args:
        key: where the node stands in the config.
        node: `_target_`, `_partial_` and arguments.
        extra: arguments that aren't the person's to choose.

    Raises:
        ValueError: if an argument doesn't exist or its value isn't allowed.
    """
    arguments = plain_config(node)
    name = str(arguments.pop("_target_", None))
    if not name.startswith(ALLOWED_TARGETS):
        raise ValueError(f"{key}._target_={name}: it should start with one of {', '.join(ALLOWED_TARGETS)}")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}._target_={name}: {_one_line(error)}") from error
    if not str(getattr(target, "__module__", None)).startswith(ALLOWED_TARGETS):
        raise ValueError(f"{key}._target_={name}: it is something that this name's module only imports")
    arguments.pop("_partial_", None)
    check_arguments(key, target, arguments)
    try:
        return instantiate(node, **extra, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | TypeError | MisconfigurationException):
            raise ValueError(f"{key}: {_one_line(cause)}") from error
        raise


def build_session(cfg: DictConfig, run: Run, first_step: int = 0) -> Session:
    """Everything that one training needs. Nothing is read, so that a mistake shows at once.

    Args:
        cfg: as conf/train.yaml composes it.
        run: where the training's files go.
        first_step: the optimizer step at which a resumed training begins; events from there on are of a lost time.

    Raises:
        ValueError: naming the key that asks for something that can't be.
    """
    check_measuring(cfg)
    seed_everything(cfg.seed, verbose=False)
    classifier = build_classifier(cfg)
    datamodule = build_datamodule(cfg)
    config = plain_config(cfg)
    history = History(run.history_file)
    progress = bool(cfg.trainer.enable_progress_bar) and sys.stdout.isatty()
    callbacks = [
        *build_callbacks(cfg),
        RunConfig(config),
        RandomStates(),
        Interruption(run.last_checkpoint),
        LearningRateMonitor(logging_interval="step"),
        history,
        *build_checkpointing(cfg, run),
        *([Progress()] if progress else []),
    ]
    logger = TensorBoardLogger(run.folder, name="", version="", purge_step=first_step or None)
    logger.NAME_HPARAMS_FILE = run.config_file.name  # what Lightning would write to hparams.yaml stands there
    trainer = build_trainer(cfg, callbacks=callbacks, logger=logger, enable_progress_bar=progress)
    return Session(
        run, config, classifier, datamodule, trainer, functools.partial(build_measuring_trainer, cfg), history
    )


def build_classifier(cfg: DictConfig) -> Classifier:
    """Network, loss, optimizer and schedule, each tried once so that a wrong choice shows before any data is read."""
    network = build("model", cfg.model, image_shape=IMAGE_SHAPE, num_classes=len(CLASSES))
    loss = build("loss", cfg.loss)
    optimizer = build("optimizer", cfg.optimizer)
    schedule = build("scheduler", cfg.scheduler)
    try:
        optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer: {_one_line(error)}") from error
    return Classifier(network, loss, optimizer, schedule)


def build_datamodule(cfg: DictConfig) -> FashionMNISTDataModule:
    """The images, their augmentation, and the order in which the run's seed serves them."""
    datamodule: FashionMNISTDataModule = build("data", cfg.data, augment=build("augment", cfg.augment), seed=cfg.seed)
    return datamodule


def build_trainer(cfg: DictConfig, **parts: Any) -> Trainer:
    """The Trainer of the config, with the callbacks and loggers of the run.

    Raises:
        ValueError: also if the machine hasn't got what it asks for.
    """
    node: DictConfig = copy.deepcopy(cfg.trainer)
    if node.precision == "auto":
        node.precision = hardware_precision(node.accelerator)
    if node.max_epochs == -1 and node.max_steps == -1:
        raise ValueError("trainer.max_epochs=-1: without an end to the epochs, trainer.max_steps has to be given")
    # The untrained network is measured before training, which shows whether validation runs.
    ours: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0, "plugins": [WholeCheckpointIO()]}
    trainer: Trainer = build("trainer", node, **ours, **parts)
    if trainer.world_size > 1:
        raise ValueError(f"trainer.devices={node.devices}: only one device can be used")
    return trainer


def build_measuring_trainer(cfg: DictConfig) -> Trainer:
    """The same device, precision and limits, for measuring alone: it logs and keeps nothing."""
    quiet = {"callbacks": [], "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return build_trainer(cfg, **quiet)


def hardware_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware computes in it, otherwise 32-true."""
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if cuda:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def build_callbacks(cfg: DictConfig) -> list[Callback]:
    """The callbacks of the config; one that is partial is told the monitored metric and its direction."""
    callbacks = []
    for name, node in cfg.callbacks.items():
        callback = build(f"callbacks.{name}", node)
        if isinstance(callback, functools.partial):
            if not cfg.data.val_size:
                raise ValueError(f"callbacks.{name} watches {cfg.monitor}, which data.val_size=0 leaves without images")
            callback = callback(monitor=cfg.monitor, mode=direction(cfg.monitor))
        callbacks.append(callback)
    return callbacks


def build_checkpointing(cfg: DictConfig, run: Run) -> list[ModelCheckpoint]:
    """The last epoch's checkpoint always; the best one's where there are images to tell which it is."""

    def keep(file: Path, **choice: Any) -> ModelCheckpoint:
        return ModelCheckpoint(file.parent, file.stem, enable_version_counter=False, **choice)

    # The best after each validation, which need not be in each epoch; the last when its epoch is complete.
    best = keep(run.best_checkpoint, monitor=cfg.monitor, mode=direction(cfg.monitor), save_on_train_epoch_end=False)
    return [*([best] if cfg.data.val_size else []), keep(run.last_checkpoint, save_on_train_epoch_end=True)]


def check_measuring(cfg: DictConfig) -> None:
    """Refuses to choose by what isn't measured on the validation images, and to measure on no images.

    Raises:
        ValueError: naming what could be written instead.
    """
    for split, instead in (("val", "data.val_size=0"), ("test", "test=false")):
        if cfg.trainer[f"limit_{split}_batches"] == 0:
            raise ValueError(f"trainer.limit_{split}_batches=0: write {instead} to leave these images alone")
    names = metric_names("val")
    if cfg.monitor not in names:
        raise ValueError(f"monitor={cfg.monitor}: there is no such validation metric{did_you_mean(cfg.monitor, names)}")


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config without anything of OmegaConf's."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _one_line(error: BaseException) -> str:
    """The first paragraph of an error's message, on one line."""
    return " ".join(str(error).strip().split("\n\n")[0].split())
