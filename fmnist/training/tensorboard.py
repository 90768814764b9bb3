"""What TensorBoard is told besides curves and pictures: which curves stand in one chart, and what a run has chosen."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from fmnist.training.metric_names import metric_names

GROUPS = ("model", "augment", "loss", "optimizer", "scheduler")
KEYS = {
    "data": ("batch_size", "val_size"),
    "trainer": ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val"),
}
"""What of the other groups makes a result."""


class RunLogger(TensorBoardLogger):
    """Writes TensorBoard's events into a run's folder.

    Args:
        folder: the run's. Lightning itself would take a `$NAME` in it for something to be looked up.
        config_file: the file there that holds the choices, in the place of Lightning's hparams.yaml.
        first_step: events from there on are of a lost time. None in a new folder.
    """

    def __init__(self, folder: Path, config_file: Path, first_step: int | None) -> None:
        super().__init__(folder, name="", version="")
        self.NAME_HPARAMS_FILE = config_file.name
        self.folder = folder
        self.first_step = first_step

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    root_dir = log_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir, purge_step=self.first_step)
        return self._experiment


class _Writer(SummaryWriter):
    """Begins each file under a name that comes after all that are there.

    TensorBoard reads a folder's files in the order of their names, and never goes back. The names hold the second of
    their beginning, which a clock that was set back repeats, and then numbers, of which as text the 10th is before the
    9th.
    """

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is not None:
            return self.file_writer
        stamps = [file.name.split(".")[3] for file in Path(self.log_dir).glob("events.out.tfevents.*")]
        with _named_from(max((int(stamp) + 1 for stamp in stamps if stamp.isdigit()), default=0)):
            writer: FileWriter = super()._get_file_writer()  # type: ignore[no-untyped-call]
        return writer


@contextlib.contextmanager
def _named_from(second: int) -> Iterator[None]:
    """A file of events gets this second for its name, where the clock is not that far."""
    event_file_writer.time = SimpleNamespace(time=lambda: max(second, time.time()))
    try:
        yield
    finally:
        event_file_writer.time = time


def log_charts(logger: Logger | None, classes: Sequence[str]) -> None:
    """The layout of the tab Custom Scalars."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_custom_scalars(charts(classes))


def charts(classes: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """The charts of several curves, by category and title: training beside validation, the classes by name."""

    def together(*names: str) -> list[Any]:
        return ["Multiline", [f"^{name}$" for name in names]]

    per_class = {phase: together(*metric_names(phase, classes)[2:]) for phase in ("train", "val")}
    return {
        "training and validation": {name: together(f"train/{name}", f"val/{name}") for name in ("loss", "accuracy")},
        "accuracy of each class": {"validation": per_class["val"], "training": per_class["train"]},
    }


def log_choices(logger: Logger | None, config: dict[str, Any], final: dict[str, float], step: int) -> None:
    """A row of the tab HParams.

    Args:
        logger: the run's.
        config: as plain values.
        final: what came of the choices, by name; as curves of one point beginning with "final/".
        step: where that point lies.
    """
    if not isinstance(logger, TensorBoardLogger):
        return
    for name, value in final.items():
        logger.experiment.add_scalar(f"final/{name}", value, step)
    # The summary that is left out would be of this run alone: without it TensorBoard looks at all runs, and shows first
    # the choices that differ.
    _, *summaries = hparams(choices(config), {})
    for summary in summaries:
        logger.experiment.file_writer.add_summary(summary)
    logger.finalize("success")


def choices(config: dict[str, Any]) -> dict[str, str | int | float]:
    """What makes a result, by the names that a person types: {"seed": 0, "model": "CNN", "model.dropout": 0.2, ...}."""
    found = {"seed": config["seed"]}
    for group in GROUPS:
        for key, value in config[group].items():
            if key == "_target_":
                found[group] = value.rpartition(".")[2]
            elif key != "_partial_":
                found[f"{group}.{key}"] = value
    found |= {f"{group}.{key}": config[group][key] for group, keys in KEYS.items() for key in keys}
    # TensorBoard knows no lists, and no null.
    return {key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in found.items()}
