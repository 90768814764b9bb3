"""Batches for the network: by index from tensors, against the image-by-image DataLoader of the tutorials."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fmnist.data.augment import Augmentation
from fmnist.data.info import FASHION_MNIST
from fmnist.data.loader import BatchLoader
from tools.baseline import torchvision_dataset, tutorial_loader
from tools.benchmarks.comparison import Comparison, Options, interleave

BATCH_SIZE = 256
TUTORIAL_BATCHES = 24  # of the DataLoader in one repetition: enough for a rate
AUGMENTATIONS = {"no augmentation": Augmentation(), "flip and shift": Augmentation(flip=0.5, shift=2)}


def compare(options: Options) -> Iterator[Comparison]:
    """Yield the images per second, without augmentation and with flip and shift; nothing is trained."""
    for name, augment in AUGMENTATIONS.items():
        values = interleave(loaders(options.data, augment), options.repetitions)
        yield Comparison(f"input, {name}", "images/s", values, {"BatchLoader": {"DataLoader": "DataLoader"}})


def loaders(data: Path, augment: Augmentation) -> dict[str, Callable[[], float]]:
    """Return functions that measure the images per second of both loaders."""
    dataset = torchvision_dataset(data)
    loader = BatchLoader(dataset.data[:, None], dataset.targets, BATCH_SIZE, shuffle_seed=0)
    baseline = tutorial_loader(data, BATCH_SIZE, augment)
    return {
        "DataLoader": lambda: rate(len(labels) for _, labels in itertools.islice(baseline, TUTORIAL_BATCHES)),
        "BatchLoader": lambda: rate(len(FASHION_MNIST.normalise(augment(images))) for images, _ in loader),
    }


def rate(counts: Iterable[int]) -> float:
    """Return the counted images per second."""
    start = time.perf_counter()
    return sum(counts) / (time.perf_counter() - start)
