"""TensorBoard's files in a run's folder, its charts of several curves, and its table of hyperparameters."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from fmnist.config.keys import affects_result
from fmnist.training.metric_names import TOP5_CLASSES, metric_names, scalar_names

ONE_CLASS = ("augment",)
"""Groups whose objects are always of the same class."""


class RunLogger(TensorBoardLogger):
    """Write TensorBoard's events into a run's folder.

    Args:
        folder: the run's.
        config_file: the file in it that holds the config, in place of Lightning's hparams.yaml.
        first_step: TensorBoard discards earlier events from this step on, as of a run that was killed. None in a new
            folder.
    """

    def __init__(self, folder: Path, config_file: Path, first_step: int | None) -> None:
        super().__init__(folder, name="", version="")
        self.NAME_HPARAMS_FILE = config_file.name
        self.folder = folder
        self.first_step = first_step

    @property
    def log_dir(self) -> str:
        return str(self.folder)  # Lightning itself would replace `$NAME` in it by an environment variable

    root_dir = log_dir

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics under the tags of `tag`; the epoch has no curve."""
        super().log_metrics({tag(name): value for name, value in metrics.items() if name != "epoch"}, step)

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir, purge_step=self.first_step)
        return self._experiment


class _Writer(SummaryWriter):
    """Start each file under a name that sorts after those of all existing files.

    TensorBoard reads a folder's files in the order of their names, which hold the second of their beginning. A clock
    that was set back repeats it.
    """

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is not None:
            return self.file_writer
        stamps = [file.name.split(".")[3] for file in Path(self.log_dir).glob("events.out.tfevents.*")]
        second = max((int(stamp) + 1 for stamp in stamps if stamp.isdigit()), default=0)
        event_file_writer.time = SimpleNamespace(time=lambda: max(second, time.time()))
        try:
            writer: FileWriter = super()._get_file_writer()  # type: ignore[no-untyped-call]
        finally:
            event_file_writer.time = time
        return writer


def tag(metric: str) -> str:
    """Return the tag of a metric in TensorBoard, which sorts tags and makes a group of those with the same first part.

    Loss and accuracy come first, then the classes: train/loss, train_accuracy_per_class/Bag, val/loss, ...
    """
    phase, slash, name = metric.partition("/accuracy_per_class/")
    if slash:
        return f"{phase}_accuracy_per_class/{name}"
    return f"train/{metric}" if metric.startswith("learning_rate") else metric


def find_tensorboard(trainer: Trainer) -> TensorBoardLogger | None:
    """Return TensorBoard's logger of a Trainer, which may have others, too."""
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def log_charts(trainer: Trainer, classes: Sequence[str]) -> None:
    """Write the layout of the tab Custom Scalars: charts of training with validation, and of all classes if few."""
    if (logger := find_tensorboard(trainer)) is None:
        return

    def multiline(*names: str) -> list[Any]:
        return ["Multiline", [f"^{name}$" for name in names]]

    scalars = scalar_names(len(classes))
    layout = {"training and validation": {name: multiline(f"train/{name}", f"val/{name}") for name in scalars}}
    if len(classes) < TOP5_CLASSES:  # more lines can't be told apart
        names = {phase: metric_names(phase, classes)[len(scalars) :] for phase in ("train", "val")}
        per_class = {phase: multiline(*map(tag, each)) for phase, each in names.items()}
        layout["accuracy of each class"] = {"validation": per_class["val"], "training": per_class["train"]}
    logger.experiment.add_custom_scalars(layout)


def log_hparams(trainer: Trainer, config: Mapping[str, Any], final: Mapping[str, float], step: int) -> None:
    """Write a row of the tab HParams, and the final results as curves of one point, at `step`.

    Their tags sort before the others, so that they are the first columns after the hyperparameters.
    """
    if (logger := find_tensorboard(trainer)) is None:
        return
    for name, value in final.items():
        logger.experiment.add_scalar(f"final/{name}", value, step)
    # The first summary would describe this run alone: without it TensorBoard looks at all runs, and shows first the
    # columns that differ.
    _, start, end = hparams(hyperparameters(config), {})
    metadata = start.value[0].metadata.plugin_data
    row = HParamsPluginData.FromString(metadata.content)
    folder = Path(logger.log_dir)
    row.session_start_info.group_name = f"{folder.name} ({folder.parent.name})"  # only its beginning is shown
    metadata.content = row.SerializeToString()
    for summary in (start, end):
        logger.experiment.file_writer.add_summary(summary)
    logger.finalize("success")


def hyperparameters(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return what affects a result, by dotted key, and the seed: {"seed": 0, "model": "CNN", "model.dropout": 0.2}."""
    found = {"seed": config["seed"]}
    for key, value in _flatten(config):
        if affects_result(key):
            group, _, name = key.rpartition(".")
            if name != "_target_":
                found[key] = value
            elif group not in ONE_CLASS:
                found[group] = value.rpartition(".")[2]
    # TensorBoard knows no lists, and no null.
    return {key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in found.items()}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
