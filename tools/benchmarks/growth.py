"""How time and memory of the training grow with images, batch, width and depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fmnist.config.logs import stderr_silent
from fmnist.training.train import Training
from tools.benchmarks.bench import Bench
from tools.benchmarks.clocks import EpochClock
from tools.benchmarks.training import ONE_EPOCH, trainer_epoch
from tools.benchmarks.turns import Measurement, exponents, summary, take_turns

STEPS = 6  # of one repetition, where the images don't grow


@dataclass(frozen=True)
class Axis:
    """What grows.

    Args:
        start: the first size, which is doubled.
        words: a size as words of scripts/train.py.
        epochs: whether the size is that of the epoch, whose seconds are told, not a step's.
    """

    start: int
    words: Callable[[int], Sequence[str]]
    epochs: bool = False


def channels(sizes: Sequence[int]) -> str:
    """As scripts/train.py reads them."""
    return f"model.channels=[{','.join(map(str, sizes))}]"


AXES = {
    "images in an epoch": Axis(2048, lambda size: [f"data.batch_size={min(size, 256)}"], epochs=True),
    "images in a batch": Axis(32, lambda size: [f"data.batch_size={size}"]),
    "filters of the first convolution": Axis(
        8, lambda size: ["model=cnn", channels([size, 2 * size, 4 * size]), "data.batch_size=64"]
    ),
    "convolutions of 16 filters": Axis(
        1,
        lambda size: [
            "model=cnn",
            channels([16] * size),
            "model.pooling=none",
            "model.hidden=[]",
            "data.batch_size=64",
        ],
    ),
}


def compare(bench: Bench) -> dict[str, Any]:
    """For each axis: its sizes, seconds of a step or an epoch, the peak of the tensors' memory, and the exponents of
    both from one size to the next."""
    return {name: grow(bench, name, axis) for name, axis in AXES.items()}


def grow(bench: Bench, name: str, axis: Axis) -> dict[str, Any]:
    """One axis; the sizes take turns."""
    sizes = [axis.start * 2**times for times in range(bench.doublings + 1)]
    values = take_turns(f"growth, {name}", [seconds(bench, axis, size) for size in sizes], bench.repetitions)
    times = [summary(values[str(size)]) for size in sizes]
    peaks = [peak_mib(bench, axis, size) for size in sizes]
    return {
        "of": "epoch" if axis.epochs else "step",
        "sizes": sizes,
        "seconds": times,
        "seconds_exponents": exponents(sizes, [time["median"] for time in times]),
        "mib": peaks,
        "mib_exponents": exponents(sizes, peaks),
    }


def seconds(bench: Bench, axis: Axis, size: int) -> Measurement:
    """Of a step of the Trainer, or of its epoch."""

    def measure() -> dict[str, float]:
        clock = EpochClock()
        with bench.open_session([*axis.words(size), *ONE_EPOCH], clock) as session:
            steps = steps_of(session, axis, size)
            epoch = trainer_epoch(session, clock, steps)
        return {str(size): epoch.seconds / (1 if axis.epochs else steps)}

    return measure


def steps_of(session: Training, axis: Axis, size: int) -> int:
    """How many batches are trained on; the training split gets as many images, by repeating some if it must."""
    datamodule = session.datamodule
    steps = size // datamodule.batch_size if axis.epochs else STEPS
    images, labels = datamodule.splits["train"]
    chosen = torch.arange(steps * datamodule.batch_size) % len(labels)
    datamodule.splits["train"] = (images[chosen], labels[chosen])
    return steps


def peak_mib(bench: Bench, axis: Axis, size: int) -> float:
    """MiB of all tensors at their most: the training images, the network, and what the steps allocate."""
    clock = EpochClock()
    with bench.open_session([*axis.words(size), *ONE_EPOCH], clock) as session:
        steps = steps_of(session, axis, size)
        before = [*session.datamodule.splits["train"], *session.classifier.state_dict().values()]
        held = sum(tensor.nbytes for tensor in before if isinstance(tensor, torch.Tensor))
        allocated = allocated_bytes(lambda: trainer_epoch(session, clock, steps))
    return (held + allocated) / 2**20


def allocated_bytes(work: Callable[[], object]) -> int:
    """The most bytes of new tensors on the CPU that were there at the same time."""
    # The profiler tells, past Python, that it starts and finds no GPU.
    with stderr_silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    total = most = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most
