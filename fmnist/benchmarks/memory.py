"""The memory of a whole training process, by batch size."""

from typing import Any

from fmnist.benchmarks.bench import Bench
from fmnist.benchmarks.processes import run_process
from fmnist.benchmarks.start import IMPORT, train_process
from fmnist.benchmarks.turns import Measurement, quantities, take_turns

STEPS = 10  # of training: a step needs what the one before gave back


def compare(bench: Bench) -> dict[str, Any]:
    """The most that a process had at a time (resident set, MiB), once each: training, validation, test and report."""
    measurements: list[Measurement] = [lambda: {"import lightning, for comparison": run_process(IMPORT).peak_mib}]
    measurements += [training(bench, size) for size in bench.memory_batch_sizes]
    return quantities("MiB", take_turns("memory", measurements, 1, warm_up=False))


def training(bench: Bench, batch_size: int) -> Measurement:
    """A process that trains a part of an epoch with batches of this size."""
    words = (f"data.batch_size={batch_size}", "trainer.max_epochs=1", f"trainer.limit_train_batches={STEPS}")
    return lambda: {f"train.py data.batch_size={batch_size}": train_process(bench, *words).process.peak_mib}
