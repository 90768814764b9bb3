"""Suggest a learning rate from the loss of a short training whose learning rate rises from step to step."""

import contextlib
import functools
import json
import logging
import math
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from hydra.types import RunMode
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.tuner import lr_finder
from lightning.pytorch.tuner.tuning import Tuner
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from fmnist.config import logs
from fmnist.config.build import build_classifier, build_datamodule
from fmnist.config.checks import check_loss
from fmnist.config.errors import explain_out_of_memory
from fmnist.config.keys import TrainKeys
from fmnist.config.overrides import key_of, program
from fmnist.config.settings import read_settings
from fmnist.config.trainer import build_trainer
from fmnist.plotting.style import INK, TRAIN, WRONG, new_figure, save_png, styled
from fmnist.runs.files import atomic_path
from fmnist.training.classifier import OptimizerFactory
from fmnist.training.rank_info import leave_others

log = logging.getLogger(__name__)
MIN_STEPS = 20
BETA = 0.98  # of Lightning's running mean of the loss
BELOW_MINIMUM = 10
"""The suggestion is the learning rate of the lowest loss, divided by this."""
# Source: Howard and Gugger, Deep Learning for Coders, chapter 5. Lightning's own suggestion, where the loss falls most
# steeply per unit of the learning rate, is 5.9e-5 for three_convolutions, whose tuned learning rate is 0.0043.


@dataclass(kw_only=True)
class Settings(TrainKeys):
    """The keys of conf/find_lr.yaml, and what they may be."""

    name: str | None  # type: ignore[assignment]
    min_lr: Annotated[float, Gt(0), Le(1e6)]
    max_lr: Annotated[float, Gt(0), Le(1e6)]
    steps: Annotated[int, Ge(MIN_STEPS), Le(100_000)]
    output: str | None


@dataclass
class Search:
    """What a search has found."""

    rates: Sequence[float]
    losses: Sequence[float]
    """Running mean of the training loss in the step with each rate; not finite where the training has diverged."""
    suggestion: float


@explain_out_of_memory("try half of data.batch_size, or a smaller network")
def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Log a learning rate as an override to copy, and draw the curve that it was read from.

    Raises:
        ValueError: if the config asks for something impossible, or no learning rate is better than others. Nothing is
            written then.
        KeyboardInterrupt: if the user pressed Ctrl-C. Nothing is written then.
    """
    leave_others()  # a search has one process
    logs.to_terminal()
    given = read_settings(Settings, cfg)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    in_sweep = hydra.mode == RunMode.MULTIRUN
    default = (
        Path(hydra.runtime.output_dir, "find_lr.png") if in_sweep else Path(given.outputs, "find_lr", f"{stamp}.png")
    )
    target = check_settings(given, cfg, default)
    seed_everything(given.seed, verbose=False)
    datamodule = build_datamodule(cfg)
    classifier = build_classifier(cfg, datamodule.dataset)
    check_loss(cfg, classifier.loss, datamodule.augment, datamodule.dataset)
    classifier.optimizer = proportional(classifier.optimizer)
    node = cfg.trainer.copy()
    node.update({"devices": 1, "num_nodes": 1, "strategy": "auto", "max_epochs": -1, "max_steps": given.steps})
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Any] = {"callbacks": [], "logger": False, "enable_checkpointing": False}
        trainer = build_trainer(node, progress=False, default_root_dir=folder, **parts)
        datamodule.prepare_data()
        rates, losses = rise(trainer, classifier, datamodule, given)
    search = Search(rates, losses, suggest(rates, losses))
    overrides = rate_overrides(cfg.optimizer, search.suggestion)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        save_png(curve(search, cfg.optimizer.get("lr")), temporary)
    log.info("loss over learning rate, %d steps: %s", len(rates), target)
    log.info("suggestion: %s", " ".join(overrides))
    log.info("%s", meaning(str(cfg.scheduler.get("_target_")).rpartition(".")[2]))
    left_out = {*Settings.__dataclass_fields__} - {*TrainKeys.__dataclass_fields__} | set(map(key_of, overrides))
    kept = [shlex.quote(word) for word in hydra.overrides.task if key_of(word) not in left_out]
    log.info("to train with it:  %s", " ".join([program("train"), *kept, *overrides]))


def check_settings(given: Settings, cfg: DictConfig, default: Path) -> Path:
    """Refuse keys that don't go with a search, and return the file of the curve; `default` where none is given.

    Raises:
        ValueError: naming the key.
    """
    for key, fixed in {"name": None, "test": False, "report": False, "resume": None}.items():
        if getattr(given, key) != fixed:
            raise ValueError(f"{key}={json.dumps(getattr(given, key))}: not here, as a search makes no run")
    if given.min_lr >= given.max_lr:
        raise ValueError(f"min_lr={given.min_lr}: must be less than max_lr, {given.max_lr}")
    if cfg.trainer.get("fast_dev_run"):
        raise ValueError("trainer.fast_dev_run=true: a search needs more than one batch")
    if isinstance(rate := cfg.optimizer.get("lr"), int | float) and rate <= 0:
        raise ValueError(
            f"optimizer.lr={rate}: must be greater than 0, as other rates of the optimizer keep their ratio"
        )
    target = Path(given.output or default)
    if target.suffix.lower() != ".png":
        raise ValueError(f"output={given.output}: the name must end in .png")
    if given.output and not target.parent.is_dir():
        raise ValueError(f"output={given.output}: there is no folder {target.parent}")
    return target


def proportional(factory: OptimizerFactory) -> OptimizerFactory:
    """Return a factory whose optimizers keep the ratio of their groups' learning rates.

    Lightning's finder sets one rate for all groups; Muon has another one for AdamW.
    """

    def make(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = factory(parameters)
        first, *others = optimizer.param_groups
        ratios = [group["lr"] / first["lr"] for group in others]

        def restore_ratios(*_: object) -> None:
            for group, ratio in zip(others, ratios, strict=True):
                group["lr"] = first["lr"] * ratio

        optimizer.register_step_pre_hook(restore_ratios)
        return optimizer

    return make


def rise(trainer: Trainer, classifier: Any, datamodule: Any, given: Settings) -> tuple[list[float], list[float]]:
    """Train while the learning rate rises exponentially, and return it and the running mean of the loss by step."""
    with bar_on_terminals():
        try:
            finder = Tuner(trainer).lr_find(
                classifier,
                datamodule=datamodule,
                min_lr=given.min_lr,
                max_lr=given.max_lr,
                num_training=given.steps,
                update_attr=False,
            )
        except SystemExit as end:  # as which Lightning passes Ctrl-C on
            raise KeyboardInterrupt from end
    assert finder is not None  # without fast_dev_run
    # Lightning divides the running mean of n losses by 1 - beta^(n + 1) instead of 1 - beta^n: the first one is halved.
    losses = [loss * (1 - BETA ** (n + 1)) / (1 - BETA**n) for n, loss in enumerate(finder.results["loss"], start=1)]
    return finder.results["lr"], losses


@contextlib.contextmanager
def bar_on_terminals() -> Iterator[None]:
    """Keep the finder's progress bar, which it always shows, from files and pipes."""
    bar = getattr(lr_finder, "tqdm")  # noqa: B009 (mypy)
    setattr(lr_finder, "tqdm", functools.partial(bar, disable=None, leave=False))  # noqa: B010 (mypy)
    try:
        yield
    finally:
        setattr(lr_finder, "tqdm", bar)  # noqa: B010


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return a tenth of the learning rate with the lowest running mean of the loss, with two digits.

    Raises:
        ValueError: if the loss doesn't fall, or still falls at the end.
    """
    found = [(loss, rate) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    if len(found) < MIN_STEPS:
        raise ValueError(
            f"min_lr={rates[0]:g}: the loss is infinite or NaN after {len(found)} steps: take a smaller one"
        )
    loss, rate = min(found)
    if (loss, rate) == found[0]:
        raise ValueError(f"min_lr={rates[0]:g}: the loss rises from there on: take a smaller one, or more steps")
    if (loss, rate) == found[-1]:
        raise ValueError(f"max_lr={rates[-1]:g}: the loss still falls there: take a larger one")
    return float(f"{rate / BELOW_MINIMUM:.1e}")


def rate_overrides(optimizer: DictConfig, suggestion: float) -> list[str]:
    """Return the overrides of a suggestion: optimizer.lr, and other learning rates in the same ratio to it."""
    known = optimizer.get("lr")
    others = [str(name) for name in optimizer if str(name).endswith("_lr")] if known else []
    return [f"optimizer.lr={suggestion:g}"] + [
        f"optimizer.{name}={optimizer[name] * suggestion / known:.2g}" for name in others
    ]


def meaning(schedule: str) -> str:
    """Return what a suggestion means with a schedule, by the name of its function."""
    where = {
        "one_cycle": "it is the peak of the one-cycle schedule, which most of the training stays below",
        "cosine": "it is the highest rate of the cosine schedule, after its warm-up",
        "step": "the step schedule starts at it and lowers it",
        "constant": "the constant schedule keeps it to the end, for which it may be too high: try a third of it, too",
    }.get(schedule, "it is what the schedule multiplies")
    return f"{where}; an estimate from the first steps of a new network, to be compared with others"


@styled
def curve(search: Search, present: float | None) -> Figure:
    """Return the running mean of the loss over the learning rate, with the suggestion and the present setting."""
    figure = new_figure(6.5, 3.8)
    axes = figure.add_subplot()
    points = [(rate, loss) for rate, loss in zip(search.rates, search.losses, strict=True) if math.isfinite(loss)]
    axes.plot(*zip(*points, strict=True), color=TRAIN)
    axes.axvline(search.suggestion, color=WRONG, linestyle="--", label=f"suggestion {search.suggestion:g}")
    if isinstance(present, int | float):
        axes.axvline(present, color=INK, linestyle=":", label=f"optimizer.lr={present:g}")
    low, first = min(loss for _, loss in points), points[0][1]
    axes.set_ylim(low - 0.1 * (first - low), first + 0.5 * (first - low))  # where it explodes would flatten the rest
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (running mean)")
    axes.set_title("Loss while the learning rate rises")
    axes.grid(visible=True)
    axes.legend(loc="upper left")
    return figure
