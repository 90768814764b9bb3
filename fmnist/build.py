"""The one place where a config becomes objects."""

import copy
import functools
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from fmnist import schedules
from fmnist.arguments import check_arguments, did_you_mean
from fmnist.callbacks import History, Interruption, KeepCheckpoint, Pictures, Progress, RandomStates, RunConfig
from fmnist.checkpoints import WholeCheckpointIO
from fmnist.classes import CLASSES, IMAGE_SHAPE
from fmnist.classifier import Classifier
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.metrics import direction, metric_names
from fmnist.runs import Run
from fmnist.training import Session

ALLOWED_TARGETS = ("fmnist.", "torch.nn.", "torch.optim.", "lightning.pytorch.")
"""Where a `_target_` may point."""

Count = Annotated[int, Ge(1)]
Share = Annotated[int, Gt(0)] | Annotated[float, Gt(0), Le(1)]
"""Of the batches: that many of them, or that share."""


def build(key: str, node: DictConfig, kind: type | ModuleType, **extra: Any) -> Any:
    """What a node of the config describes: its `_target_`, called with its other keys.

    Args:
        key: where the node stands in the config.
        node: `_target_`, `_partial_` and arguments.
        kind: the class that the target is or descends from, or the module of which it is a function: a config from a
            stranger builds nothing else.
        extra: arguments that aren't the person's to choose.

    Raises:
        ValueError: if the target is of another kind, an argument doesn't exist, or its value isn't allowed.
    """
    if not isinstance(node, DictConfig):
        raise ValueError(f"{key}={node}: it should have a _target_ and arguments")
    arguments = plain_config(node)
    target = find_target(key, str(arguments.pop("_target_", None)), kind)
    arguments.pop("_partial_", None)
    if fixed := sorted(extra.keys() & arguments.keys()):
        raise ValueError(f"{key}.{fixed[0]} is not to be chosen")
    check_arguments(key, target, arguments)
    try:
        return instantiate(node, **extra, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | TypeError | ImportError | MisconfigurationException):
            raise ValueError(f"{key}: {_one_line(cause)}") from error
        raise


def find_target(key: str, name: str, kind: type | ModuleType) -> Callable[..., Any]:
    """The class or function that `_target_` names, if it is of the kind that belongs there."""
    if not name.startswith(ALLOWED_TARGETS):
        raise ValueError(f"{key}._target_={name}: it should start with one of {', '.join(ALLOWED_TARGETS)}")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}._target_={name}: {_one_line(error)}") from error
    if isinstance(kind, ModuleType):
        fits = inspect.isfunction(target) and target.__module__ == kind.__name__
    else:
        fits = inspect.isclass(target) and issubclass(target, kind)
    if not fits:
        raise ValueError(f"{key}._target_={name}: it should be of {kind.__name__}")
    found: Callable[..., Any] = target
    return found


def build_session(cfg: DictConfig, run: Run, first_step: int = 0) -> Session:
    """Everything that one training needs. Nothing is read, so that a mistake shows at once.

    Args:
        cfg: as conf/train.yaml composes it.
        run: where the training's files go.
        first_step: the optimizer step at which a resumed training begins; events from there on are of a lost time.

    Raises:
        ValueError: naming the key that asks for something that can't be.
    """
    check_monitor(cfg)
    seed_everything(cfg.seed, verbose=False)
    classifier = build_classifier(cfg)
    datamodule = build_datamodule(cfg)
    history = History(run.history_file)
    progress = bool(cfg.trainer.enable_progress_bar) and sys.stdout.isatty()
    config = plain_config(cfg)
    # As this machine and this folder have it, so that the same comes of it elsewhere.
    config["data"]["root"] = str(datamodule.root.absolute())
    if cfg.trainer.precision == "auto":
        config["trainer"]["precision"] = hardware_precision(cfg.trainer.accelerator)
    callbacks: list[Callback] = [
        *build_callbacks(cfg),
        RunConfig(config),
        RandomStates(),
        Interruption(run.last_checkpoint),
        LearningRateMonitor(logging_interval="step"),
        *([build("pictures", cfg.pictures, Pictures)] if cfg.pictures else []),
        history,
        *build_checkpointing(cfg, run),
        *([Progress()] if progress else []),
    ]
    logger = TensorBoardLogger(run.folder, name="", version="", purge_step=first_step or None)
    logger.NAME_HPARAMS_FILE = run.config_file.name  # what Lightning would write to hparams.yaml stands there
    trainer = build_trainer(cfg.trainer, progress=progress, callbacks=callbacks, logger=logger)
    return Session(
        run, config, classifier, datamodule, trainer, functools.partial(build_measuring_trainer, cfg), history
    )


def build_classifier(cfg: DictConfig) -> Classifier:
    """Network, loss, optimizer and schedule, each tried once so that a wrong choice shows before any data is read."""
    network = build("model", cfg.model, nn.Module, image_shape=IMAGE_SHAPE, num_classes=len(CLASSES))
    loss = build("loss", cfg.loss, nn.Module)
    optimizer = build("optimizer", cfg.optimizer, Optimizer)
    schedule = build("scheduler", cfg.scheduler, schedules)
    try:
        optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer: {_one_line(error)}") from error
    return Classifier(network, loss, optimizer, schedule)


def build_datamodule(cfg: DictConfig) -> FashionMNISTDataModule:
    """The images, their augmentation, and the order in which the run's seed serves them."""
    augment = build("augment", cfg.augment, Augmentation)
    datamodule: FashionMNISTDataModule = build("data", cfg.data, FashionMNISTDataModule, augment=augment, seed=cfg.seed)
    return datamodule


def build_trainer(node: DictConfig, *, progress: bool, **parts: Any) -> Trainer:
    """The Trainer of the config, with the callbacks and loggers of the run.

    Raises:
        ValueError: also if the machine hasn't got what it asks for.
    """
    node = copy.deepcopy(node)
    node.enable_progress_bar = progress
    bounded = inspect.signature(trainer_bounds).parameters
    check_arguments("trainer", trainer_bounds, {name: node[name] for name in bounded if name in node})
    if node.precision == "auto":
        node.precision = hardware_precision(node.accelerator)
    if node.max_epochs in (None, -1) and node.max_steps == -1:
        raise ValueError(
            f"trainer.max_epochs={json.dumps(node.max_epochs)}: the schedule needs an end: give it or trainer.max_steps"
        )
    # The untrained network is measured before training, which shows whether validation runs.
    ours: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0, "plugins": [WholeCheckpointIO()]}
    trainer: Trainer = build("trainer", node, Trainer, **ours, **parts)
    if trainer.world_size > 1:
        raise ValueError(f"trainer.devices={node.devices}: only one device can be used")
    return trainer


def trainer_bounds(
    max_epochs: Count | Literal[-1] | None,
    max_steps: Count | Literal[-1],
    accumulate_grad_batches: Count,
    check_val_every_n_epoch: Count | None,
    log_every_n_steps: Count,
    limit_train_batches: Share,
    limit_val_batches: Share,
    limit_test_batches: Share,
) -> None:
    """What the Trainer would take and then fail with, or train nothing."""


def build_measuring_trainer(cfg: DictConfig) -> Trainer:
    """The same device, precision and limits, for measuring alone: it logs and keeps nothing."""
    node = copy.deepcopy(cfg.trainer)
    node.profiler = None
    return build_trainer(node, progress=False, callbacks=[], logger=False, enable_checkpointing=False)


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
        callback = build(f"callbacks.{name}", node, Callback)
        if isinstance(callback, functools.partial):
            if not cfg.data.val_size:
                raise ValueError(f"callbacks.{name} watches {cfg.monitor}, which data.val_size=0 leaves without images")
            callback = callback(monitor=cfg.monitor, mode=direction(cfg.monitor))
        callbacks.append(callback)
    return callbacks


def build_checkpointing(cfg: DictConfig, run: Run) -> list[Callback]:
    """The last epoch's checkpoint always; the best one's where there are images to tell which it is."""
    # The best after each validation, which need not be in each epoch; the last when its epoch is complete.
    last = KeepCheckpoint(run.last_checkpoint, save_on_train_epoch_end=True)
    if not cfg.data.val_size:
        return [last]
    watched = {"monitor": cfg.monitor, "mode": direction(cfg.monitor)}
    return [KeepCheckpoint(run.best_checkpoint, save_on_train_epoch_end=False, **watched), last]


def check_monitor(cfg: DictConfig) -> None:
    """Refuses a metric that isn't measured on the validation images: the test split is for reporting.

    Raises:
        ValueError: naming the nearest ones that are.
    """
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
