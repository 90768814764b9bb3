"""The wait before and after a training, in whole processes, and the memory that they need."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tools.benchmarks.comparison import Comparison, Options
from tools.processes import TRAIN, run_process

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=10", "trainer.log_every_n_steps=1")
LOSS = "training/loss_step"
"""The curve that has a point for each training step."""


def compare(options: Options) -> Iterator[Comparison]:
    """Yield the seconds and the peak memory; files have been read before, by this process."""
    rows = [measure_all(options) for _ in range(options.repetitions)]
    seconds, memory = (pd.DataFrame([row[kind] for row in rows]) for kind in (0, 1))
    yield Comparison("start", "s", seconds)
    yield Comparison("memory, largest resident set", "MiB", memory)


def measure_all(options: Options) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds and the MiB of one repetition."""
    seconds, memory = {}, {}
    commands = {
        "train.py --help": [*TRAIN, "--help"],
        "train.py --cfg job": [*TRAIN, "--cfg", "job"],
        "python -c 'import lightning'": [sys.executable, "-c", "import lightning"],
        "train.py trainer.fast_dev_run=true": [*TRAIN, *options.overrides_of(), "trainer.fast_dev_run=true"],
    }
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            finished = run_process([*command, f"outputs={folder}"] if "fast_dev_run" in name else command)
        seconds[name], memory[name] = finished.seconds, finished.peak_mib
    for report in ("true", "false"):
        before, after, memory[f"train.py report={report}"] = train_shortly(options, f"report={report}")
        seconds["train.py, from the command to the first training step"] = before
        seconds[f"train.py report={report}, from the last training step to the end"] = after
    return seconds, memory


def train_shortly(options: Options, *overrides: str) -> tuple[float, float, float]:
    """Train a few steps, and return the seconds before the first and after the last one, and the peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        finished = run_process([*TRAIN, *options.overrides_of(), *SHORT, *overrides, f"outputs={folder}"])
        steps = [
            event.wall_time
            for file in Path(folder).rglob("events.out.tfevents.*")
            for event in EventFileLoader(str(file)).Load()
            if any(value.tag == LOSS for value in event.summary.value)
        ]
    return min(steps) - finished.started, finished.ended - max(steps), finished.peak_mib
