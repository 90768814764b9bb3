"""The trainings that measure the recipes, each between two measurements of the tutorial epoch."""

import contextlib
import fcntl
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmnist.config.overrides import quoted
from fmnist.data.idx import DataUnavailableError
from fmnist.runs import provenance
from fmnist.runs.run import Run
from tools.baseline import tutorial_epoch_seconds
from tools.processes import ROOT, TRAIN, run_process
from tools.results.catalogue import Hardware, Task
from tools.trainings import open_training

CODE = (":/conf", ":/fmnist", ":/scripts")
"""What the version of a row is the version of."""


@dataclass
class RecipeRunner:
    """Makes trainings one after the other, with the tutorial epoch measured in between.

    Args:
        data: the folder of the data.
        outputs: the runs go into <recipe>/<task> there.
        tutorial_steps: that are measured of the tutorial epoch.
        lock: the file descriptor of the lock; each training holds it as well, also when this process is killed.
    """

    data: Path
    outputs: Path
    tutorial_steps: int
    lock: int
    tutorial: tuple[Hardware, float] | None = None
    """Where the tutorial epoch was measured last, and its seconds."""

    def measure(self, task: Task) -> tuple[Run, dict[str, Any]]:
        """Train, and return the run and its row.

        Raises:
            ValueError: if the training fails.
        """
        if self.tutorial is None or self.tutorial[0] != task.hardware:
            self.tutorial = (task.hardware, self.tutorial_seconds(task.hardware))
        version = code_version()
        run = self.train(task)
        before, after = self.tutorial[1], self.tutorial_seconds(task.hardware)
        self.tutorial = (task.hardware, after)
        return run, {**row_of(run, task), "tutorial_epoch_seconds": (before + after) / 2, "version": version}

    def tutorial_seconds(self, hardware: Hardware) -> float:
        """Return the seconds of a tutorial epoch here and now."""
        return tutorial_epoch_seconds(self.data, "cuda" if hardware == "gpu" else "cpu", self.tutorial_steps)

    def train(self, task: Task) -> Run:
        """Run scripts/train.py in a process.

        Raises:
            ValueError: if it fails, with the last line of its stderr.
        """
        outputs = self.outputs / task.recipe
        before = {*outputs.glob(f"{task.folder}/*")}
        folder = [f"outputs={quoted(str(outputs))}", f"name={quoted(task.folder)}"]
        run_process([*TRAIN, *task.overrides, *place(task.hardware, self.data), *folder], [self.lock])
        (made,) = {*outputs.glob(f"{task.folder}/*")} - before
        return Run(made)


def place(hardware: Hardware, data: Path) -> list[str]:
    """Return the overrides that say where a training computes and finds its data."""
    return [f"data.root={quoted(str(data))}", f"trainer.accelerator={hardware}"]


def check_tasks(tasks: Sequence[Task], data: Path) -> None:
    """Build each recipe and variant once, so that invalid values show before anything is measured. Also get the data.

    Raises:
        ValueError: naming the recipe or the variant.
    """
    for (recipe, variant), task in {(task.recipe, task.variant): task for task in tasks}.items():
        try:
            with open_training(*task.overrides, *place(task.hardware, data)):
                pass
        except DataUnavailableError:
            raise
        except Exception as error:
            raise ValueError(f"{recipe}{f'.variants.{variant}' if variant else ''}: {error}") from error


def row_of(run: Run, task: Task) -> dict[str, Any]:
    """Return what a training has written down.

    Raises:
        ValueError: if the split wasn't measured.
    """
    metrics, record = run.load_metrics(), run.load_record()
    if f"{task.split}/accuracy" not in metrics:
        raise ValueError(f"{task}: {run.metrics_file} has no {task.split}/accuracy")
    loss = metrics[f"{task.split}/loss"]
    return {
        "recipe": task.recipe,
        "variant": task.variant,
        "seed": task.seed,
        "split": task.split,
        "tta": "none",
        "runs": 1,
        "parameters": metrics["parameters"],
        "epochs": metrics["epochs"],
        "seconds": metrics["train/seconds"],
        "accuracy": metrics[f"{task.split}/accuracy"],
        "loss": math.nan if loss is None else loss,
        "precision": record["precision"],
        "machine": machine_name(task.hardware),
        "date": record["start"].partition("T")[0],
    }


def remove_earlier_runs(run: Run) -> None:
    """Remove the other runs of the same task: interrupted ones, and those whose row has been replaced."""
    for folder in run.folder.parent.iterdir():
        if folder != run.folder:
            shutil.rmtree(folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Let one process measure at a time. Yield the file descriptor of the lock.

    Raises:
        ValueError: if another process is measuring.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is measuring") from None
        yield file.fileno()


def machine_name(hardware: Hardware) -> str:
    """Return this machine's name in rows: the processor with its cores, after the GPU where that trains."""
    known = provenance.hardware()
    processor = f"{known['cpu']}, {known['cores']} cores"
    return f"{known['gpus'][0]}; {processor}" if hardware == "gpu" else processor


def code_version() -> str:
    """Return the commit, with a + where the code differs from it; nothing where there is no git."""
    state = provenance.git_state(ROOT, *CODE)
    return f"{state['commit'][:9]}{'' if state['clean'] else '+'}" if state else ""
