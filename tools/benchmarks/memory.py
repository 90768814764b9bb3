"""The memory of a whole training process, by batch size and from epoch to epoch."""

from collections.abc import Sequence
from statistics import linear_regression
from typing import Any

from tools.benchmarks.bench import Bench
from tools.benchmarks.processes import run_process
from tools.benchmarks.start import IMPORT, train_process
from tools.benchmarks.turns import Measurement, quantities, take_turns

STEPS = 10  # of training in an epoch: a step needs what the one before gave back
WITH_MEMORY = "+callbacks.stamps.memory=true"


def compare(bench: Bench) -> dict[str, Any]:
    """The most that a process had at a time (resident set), once each: training, validation, test and report.

    And of one that trains for many epochs what it had after each, of which a line through the second half is told: a
    leak would show there, while what is kept for later use is there by then.
    """
    measurements: list[Measurement] = [lambda: {"import lightning, for comparison": run_process(IMPORT).peak_mib}]
    measurements += [training(bench, size) for size in bench.memory_batch_sizes]
    peaks = quantities("MiB", take_turns("memory", measurements, 1, warm_up=False))
    resident = train_process(bench, *part_of(bench.memory_epochs), WITH_MEMORY).resident_mib
    return {"quantities": peaks | from_epoch_to_epoch(resident), "resident_mib": list(resident)}


def training(bench: Bench, batch_size: int) -> Measurement:
    """A process that trains a part of an epoch with batches of this size."""
    words = (f"data.batch_size={batch_size}", *part_of(1))
    return lambda: {f"train.py data.batch_size={batch_size}": train_process(bench, *words).process.peak_mib}


def part_of(epochs: int) -> tuple[str, str]:
    """Some steps of each of these epochs, as words of scripts/train.py."""
    return f"trainer.max_epochs={epochs}", f"trainer.limit_train_batches={STEPS}"


def from_epoch_to_epoch(resident: Sequence[float]) -> dict[str, Any]:
    """After the second epoch and the last, and how it grows from the middle on.

    Args:
        resident: MiB after each epoch; of fewer than three nothing is told.
    """
    epochs = len(resident)
    if epochs < 3:  # a system that doesn't tell it, or a training that its words ended early
        return {}
    middle = epochs // 2
    slope = linear_regression(range(middle, epochs), resident[middle:]).slope
    had = {f"train.py, resident after epoch {count}": [resident[count - 1]] for count in (2, epochs)}
    grown = {f"train.py, growth over epochs {middle + 1} to {epochs}": [slope]}
    return quantities("MiB", had) | quantities("MiB/epoch", grown)
