"""What the comparisons are made with."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightning.pytorch import Callback
from torch import Tensor

from fmnist.training.train import Training

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


class OpenSession(Protocol):
    """A training of scripts/train.py on the CPU with these words, its data read, in a folder that goes with it."""

    def __call__(self, words: Sequence[str], *callbacks: Callback) -> AbstractContextManager[Training]: ...


@dataclass(frozen=True)
class Bench:
    """The keys of conf/benchmark.yaml as plain values, and what only a config can build."""

    open_session: OpenSession
    open_network: Callable[[Path], Callable[[Tensor], Tensor]]
    """A checkpoint's network on the CPU: pixels (N, C, H, W), uint8, to probabilities (N, K)."""
    words: Sequence[str]
    """What each command of scripts/train.py has besides its own: the data, the CPU, the person's overrides."""
    precisions: Sequence[str]
    """32-true, and the hardware's own where that is another one."""
    data_root: Path
    batch_size: int
    repetitions: int
    train_images: int | None
    networks: Sequence[Sequence[str]]
    arithmetic_networks: Sequence[Sequence[str]]
    matrix_sizes: Sequence[int]
    memory_batch_sizes: Sequence[int]
    memory_epochs: int
    doublings: int

    def command(self, *words: str) -> list[str]:
        """scripts/train.py in a process of its own; later words win."""
        return [sys.executable, str(TRAIN), *self.words, *words]


def title(words: Sequence[str]) -> str:
    """What a network is called."""
    return " ".join(word.removeprefix("experiment=") for word in words) or "the default"


def whole_batches(session: Training, images: int | None) -> int:
    """BatchLoader of the training split that hold that many images or, as none is smaller than another, a few fewer.

    Args:
        session: its data being read.
        images: None for all.

    Raises:
        ValueError: if not even one batch is full.
    """
    datamodule = session.datamodule
    available = len(datamodule.splits["train"][1])
    batches = min(available if images is None else images, available) // datamodule.batch_size
    if not batches:
        raise ValueError(
            f"train_images={'null' if images is None else images}: it should be at least one batch, "
            f"of {datamodule.batch_size} of the {available} training images"
        )
    return batches
