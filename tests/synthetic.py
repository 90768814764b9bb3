"""Four small IDX files that a network can learn: each class has bright patches at a place of its own."""

from pathlib import Path

import torch
from torch import Tensor

from fmnist.data.datasets.idx_files import IdxFiles
from fmnist.data.info import FASHION_MNIST

FACTS = (
    "data.classes=[" + ",".join(f"'{name}'" for name in FASHION_MNIST.classes) + "]",
    f"data.mean={list(FASHION_MNIST.mean)}",
    f"data.std={list(FASHION_MNIST.std)}",
)
"""The overrides that describe the files as those of Fashion-MNIST."""
TRAINING, TEST = 600, 200  # images, each class having a tenth of them


def write(root: Path, black: bool = False) -> Path:
    """Fills `root` as torchvision lays Fashion-MNIST out, and returns it."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count, seed in (("train", TRAINING, 0), ("t10k", TEST, 1)):
        images, labels = make(count, seed, black)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(_idx(labels))
    return root


def dataset(root: Path) -> IdxFiles:
    """The dataset of the files in a folder."""
    classes, mean, std = (list(values) for values in (FASHION_MNIST.classes, FASHION_MNIST.mean, FASHION_MNIST.std))
    return IdxFiles(str(root), classes, mean, std)


def make(count: int, seed: int, black: bool = False) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) and labels (N), both uint8. Left-right flips and small shifts leave the classes apart.

    Where an image is dark it has noise of 0 to 59, or is black.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % 10)[torch.randperm(count, generator=generator)]
    images = torch.randint(0, 60, (count, 28, 28), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        top = 2 + 5 * (label // 2)
        for left in (4, 20) if label % 2 else (12,):
            image[top : top + 3, left : left + 4] += 180
    if black:
        images *= images >= 180
    return images.to(torch.uint8), labels.to(torch.uint8)


def _idx(values: Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4) for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + bytes(values.flatten().tolist())
