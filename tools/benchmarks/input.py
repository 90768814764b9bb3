"""BatchLoader as the network gets them: ours by index, the usual ones image by image."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from torchvision.datasets import FashionMNIST

from fmnist.data.augment import Augmentation
from fmnist.data.info import FASHION_MNIST
from fmnist.data.loader import BatchLoader
from tools.benchmarks.bench import Bench
from tools.benchmarks.turns import contest
from tools.benchmarks.usual import usual_loader

USUAL_BATCHES = 24  # of the usual loader in one repetition: enough for a rate


def compare(bench: Bench) -> dict[str, Any]:
    """Images per second without augmentation and with flip and shift: all training images, none trained on."""
    dataset = FashionMNIST(str(bench.data_root))
    batches = BatchLoader(dataset.data[:, None], dataset.targets, bench.batch_size, shuffle_seed=0)

    def ours(augment: Augmentation) -> Callable[[], float]:
        return lambda: rate(len(FASHION_MNIST.normalise(augment(images))) for images, _ in batches)

    def usual(augment: Augmentation) -> Callable[[], float]:
        loader: Any = usual_loader(bench.data_root, bench.batch_size, augment)
        return lambda: rate(len(labels) for _, labels in itertools.islice(loader, USUAL_BATCHES))

    augmentations = {"input, plain": Augmentation(), "input, flip and shift": Augmentation(flip=0.5, shift=2)}
    return {
        name: contest(
            name, {"usual": usual(augment), "ours": ours(augment)}, bench.repetitions, {"ours": {"usual": "usual"}}
        )
        for name, augment in augmentations.items()
    }


def rate(counts: Iterator[int]) -> float:
    """What is counted, per second."""
    start = time.perf_counter()
    return sum(counts) / (time.perf_counter() - start)
