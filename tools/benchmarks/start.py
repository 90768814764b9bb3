"""What a person waits for besides the training: whole processes, in seconds."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks.bench import Bench
from tools.benchmarks.clocks import STAMPS
from tools.benchmarks.processes import Ended, run_process
from tools.benchmarks.turns import Measurement, quantities, take_turns

IMPORT = [sys.executable, "-c", "import lightning"]
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=10")
"""A training with all that follows on it."""


@dataclass(frozen=True)
class Trained:
    """What is known of a process that has trained; times in seconds."""

    process: Ended
    first_step: float
    """From the command to the end of the first training step."""
    rest: float
    """From the end of the training to the end of the process."""
    resident_mib: Sequence[float]
    """After each epoch; none if `Stamps` isn't asked, or the system doesn't tell it."""


def compare(bench: Bench) -> dict[str, Any]:
    """From the command to the end, if nothing else is said; the files having been read before, by this process."""
    measurements = [
        seconds("train.py --help", [*bench.command()[:2], "--help"]),
        seconds("train.py --cfg job", bench.command("--cfg", "job")),
        seconds("import lightning, for comparison", IMPORT),
        whole(bench),
        short(bench, "train.py, from the end of training to its own", "report=true"),
        short(bench, "the same with report=false", "report=false"),
    ]
    return quantities("s", take_turns("start", measurements, bench.repetitions, warm_up=False))


def seconds(name: str, command: Sequence[str]) -> Measurement:
    """Of a whole process."""
    return lambda: {name: run_process(command).seconds}


def whole(bench: Bench) -> Measurement:
    """The parts of a training of one batch."""

    def measure() -> dict[str, float]:
        trained = train_process(bench, "trainer.fast_dev_run=true")
        return {
            "train.py, to the end of the first training step": trained.first_step,
            "train.py trainer.fast_dev_run=true": trained.process.seconds,
        }

    return measure


def short(bench: Bench, name: str, *words: str) -> Measurement:
    """What follows on the last step of a training: pictures, the checkpoint's validation and test, and the report."""
    return lambda: {name: train_process(bench, *SHORT, *words).rest}


def train_process(bench: Bench, *words: str) -> Trained:
    """Runs scripts/train.py with `Stamps`, in a folder that goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stamps.json")
        command = bench.command(
            *words, "+callbacks.stamps._target_=tools.benchmarks.clocks.Stamps", f"outputs={folder}"
        )
        ended = run_process(command, {STAMPS: str(file)})
        stamped = json.loads(file.read_text())
    first_step, rest = stamped["first_step"] - ended.started, ended.ended - stamped["trained"]
    return Trained(ended, first_step, rest, stamped["resident_mib"])
