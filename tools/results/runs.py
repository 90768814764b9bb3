"""The trainings that measure the recipes: real ones, each between two measurements of the tutorial's epoch."""

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig

from fmnist.config.build import build_classifier
from fmnist.config.overrides import quoted
from fmnist.data.sources import DataUnavailableError
from fmnist.runs import provenance as record
from fmnist.runs.run import Run
from tools.benchmarks.bench import TRAIN
from tools.benchmarks.main import SessionsOf
from tools.benchmarks.processes import run_process
from tools.benchmarks.tutorial import tutorial_epoch_seconds
from tools.benchmarks.usual import usual_loader
from tools.results.recipes import Hardware, Task
from tools.results.rows import Row

TUTORIAL = "experiment=intro_lenet"
"""Whose epochs are the unit of time."""
CODE = (":/conf", ":/fmnist", ":/scripts")
"""What a row's version is of; the tables that are written meanwhile aren't."""


class Sitting:
    """Trainings one after the other, with the time that the tutorial's epoch takes in between.

    Args:
        cfg: as conf/results.yaml composes it.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self._before: tuple[Hardware, float] | None = None
        """Of the tutorial's last epoch: where, and its seconds."""

    def measure(self, task: Task) -> tuple[Run, Row]:
        """Makes a training: its run, and what that has measured.

        Raises:
            ValueError: if it fails.
        """
        if self._before is None or self._before[0] != task.hardware:
            self._before = (task.hardware, unit_seconds(self.cfg, task.hardware))
        version = code_version()
        run = train(self.cfg, task)
        after = unit_seconds(self.cfg, task.hardware)
        before, self._before = self._before[1], (task.hardware, after)
        return run, row_of(run, task, (before + after) / 2, version)


def check_words(cfg: DictConfig, tasks: Sequence[Task]) -> None:
    """Builds once what will be trained, so that a mistake shows before anything is measured. It also gets the data.

    Raises:
        ValueError: naming the recipe or the variant.
    """
    for (name, variant), task in {(task.recipe, task.variant): task for task in tasks}.items():
        try:
            with SessionsOf(place(cfg, task), "")(task.words):
                pass
        except DataUnavailableError:
            raise
        except ValueError as error:
            key = f"catalogue.{name}.variants.{variant}" if variant else f"catalogue.{name}"
            raise ValueError(f"{key}: {error}") from error


def place(cfg: DictConfig, task: Task) -> list[str]:
    """Where a training finds what it needs, as words of scripts/train.py."""
    return [f"data.root={quoted(cfg.data_root)}", f"trainer.accelerator={task.hardware}"]


def unit_seconds(cfg: DictConfig, hardware: Hardware) -> float:
    """What an epoch of the tutorial takes here and now."""
    tutorial = compose("train", [TUTORIAL])
    classifier = build_classifier(tutorial)
    parts = (classifier.network, classifier.loss, classifier.optimizer)
    loader = usual_loader(Path(cfg.data_root), tutorial.data.batch_size)
    device = "cuda" if hardware == "gpu" else "cpu"
    return tutorial_epoch_seconds(*parts, loader, cfg.unit_steps, cfg.unit_warm_up, device)


def train(cfg: DictConfig, task: Task) -> Run:
    """Runs scripts/train.py, as a person does.

    Raises:
        ValueError: if it fails, with the last line that it said.
    """
    outputs = Path(cfg.outputs, "results", task.recipe)
    before = {*outputs.glob(f"{task.name}/*")}
    folder = [f"outputs={quoted(str(outputs))}", f"name={quoted(task.name)}"]
    run_process([sys.executable, str(TRAIN), *task.words, *place(cfg, task), *folder])
    (made,) = {*outputs.glob(f"{task.name}/*")} - before
    return Run(made)


def remove_others(run: Run) -> None:
    """Removes the earlier runs of the same training, of which there is no row any more, and those that were cut off."""
    for folder in run.folder.parent.iterdir():
        if folder != run.folder:
            shutil.rmtree(folder)


def row_of(run: Run, task: Task, tutorial_epoch_seconds: float, version: str) -> Row:
    """What a training has written down.

    Raises:
        ValueError: if it hasn't measured the split.
    """
    metrics, told = run.load_metrics(), run.load_record()
    if f"{task.split}/accuracy" not in metrics:
        raise ValueError(f"{task.recipe}: it has measured no {task.split}/accuracy, as {run.metrics_file} shows")
    loss = metrics[f"{task.split}/loss"]
    return Row(
        recipe=task.recipe,
        variant=task.variant,
        seed=task.seed,
        split=task.split,
        views="none",
        runs=1,
        parameters=metrics["parameters"],
        epochs=metrics["epochs"],
        seconds=metrics["train/seconds"],
        tutorial_epoch_seconds=tutorial_epoch_seconds,
        accuracy=metrics[f"{task.split}/accuracy"],
        loss=math.nan if loss is None else loss,
        precision=told["precision"],
        machine=machine_name(task.hardware),
        date=told["start"].partition("T")[0],
        version=version,
    )


def machine_name(hardware: Hardware) -> str:
    """This machine as a row names it: the processor and its cores, and the GPU where that is what trains."""
    known = record.hardware()
    processor = f"{known['cpu']}, {known['cores']} cores"
    return f"{known['gpus'][0]}; {processor}" if hardware == "gpu" else processor


def code_version() -> str:
    """The commit, with a + where the code differs from it; nothing where there is no git."""
    state = record.git_state(Path(__file__).parent, *CODE)
    return f"{state['commit'][:9]}{'' if state['clean'] else '+'}" if state else ""
