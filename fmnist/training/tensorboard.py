"""TensorBoard's files in a run's folder, its charts of several curves, and its table of hyperparameters."""

import json
import re
import time
from collections.abc import Mapping, Sequence
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

from fmnist.config.keys import affects_result, flat_settings
from fmnist.config.overrides import key_of
from fmnist.training.metric_names import PHASES, TOP5_CLASSES, metric_names, scalar_names


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
    """Return the tag of a metric in TensorBoard, where the part before the first slash names a group.

    TensorBoard sorts groups, opens the first two and shows the first five metrics beside the hyperparameters, so that
    accuracy/train, accuracy/val, loss/train and loss/val come first. All other groups sort after them.
    """
    phase, _, name = metric.partition("/")
    if metric.startswith("learning_rate") or name in ("loss_step", "images_per_second"):
        return f"training/{metric.removeprefix('train/')}"
    if phase not in PHASES:
        return metric
    if name.startswith("accuracy_per_class/"):
        return f"{phase}_{name}"
    return f"accuracy/{phase}_top5" if name == "accuracy_top5" else f"{name}/{phase}"


def find_tensorboard(trainer: Trainer) -> TensorBoardLogger | None:
    """Return TensorBoard's logger of a Trainer, which may have others, too."""
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def log_charts(trainer: Trainer, classes: Sequence[str]) -> None:
    """Write the layout of the tab Custom Scalars: charts of training with validation, and of all classes if few."""
    if (logger := find_tensorboard(trainer)) is None:
        return

    def multiline(*names: str) -> list[Any]:
        return ["Multiline", [f"^{re.escape(tag(name))}$" for name in names]]

    scalars = scalar_names(len(classes))
    layout = {"training and validation": {name: multiline(f"train/{name}", f"val/{name}") for name in scalars}}
    if len(classes) < TOP5_CLASSES:  # more lines can't be told apart
        names = {phase: metric_names(phase, classes)[len(scalars) :] for phase in ("train", "val")}
        layout["accuracy of each class"] = {
            "validation": multiline(*names["val"]),
            "training": multiline(*names["train"]),
        }
    logger.experiment.add_custom_scalars(layout)


def log_hparams(
    trainer: Trainer, config: Mapping[str, Any], overrides: Sequence[str], result: Mapping[str, float], step: int
) -> None:
    """Write a row of the tab HParams, and the result as curves of one point, at `step`.

    Args:
        trainer: its logger gets the row.
        config: the run's, as plain values.
        overrides: as typed.
        result: of the chosen checkpoint, by metric; the curves accuracy/val and loss/val end with the last epoch.
        step: the first one that isn't done: where the run is resumed, the points are dropped.
    """
    if (logger := find_tensorboard(trainer)) is None:
        return
    for name, value in result.items():
        logger.experiment.add_scalar(f"result/{name}", value, step)
    # The first summary would describe this run alone: without it TensorBoard looks at all runs, and shows first the
    # columns that differ.
    _, start, end = hparams(hyperparameters(config, overrides), {})
    metadata = start.value[0].metadata.plugin_data
    row = HParamsPluginData.FromString(metadata.content)
    row.session_start_info.group_name = trial_name(Path(logger.log_dir))
    metadata.content = row.SerializeToString()
    for summary in (start, end):
        logger.experiment.file_writer.add_summary(summary)
    logger.finalize("success")


def hyperparameters(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str | int | float]:
    """Return the overrides that affect the result: {"optimizer": "sgd", "model.dropout": 0.2}; the seed without any.

    A run doesn't know the others: of all its settings, most would be columns that are the same everywhere.
    """
    values, found = flat_settings(config), {}
    for override in overrides:
        key, text = key_of(override), override.partition("=")[2]
        if text and (key == "seed" or affects_result(key)):
            found[key] = values.get(key, text)  # an option of a group has no value
    found = found or {"seed": config["seed"]}
    if "seed" in found:
        found["seed"] = str(found["seed"])  # TensorBoard shows an integer as 0.0000
    # TensorBoard knows no lists, and no null.
    return {key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in found.items()}


def trial_name(folder: Path) -> str:
    """Return a unique name of a run, of which TensorBoard shows 15 characters: its time, or the values of a job.

    "11-30_09-27-40 (train/2026-11-30_09-27-40)", or "0.1, sgd (sweep_.../model.dropout=0.1,optimizer=sgd)".
    """
    short = re.sub(r"^\d{4}-", "", folder.name)
    short = ", ".join(part.rpartition("=")[2] for part in short.split(","))
    return f"{short} ({folder.parent.name}/{folder.name})"
