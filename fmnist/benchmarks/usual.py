"""The usual way, as the tutorials have it: image by image through torchvision's transforms, a loop of their own.

Nothing here imports Lightning, so that the loop can run in a process that has never heard of it.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from fmnist.classes import IMAGE_SHAPE
from fmnist.data.augment import Augmentation


def usual_loader(
    root: Path, batch_size: int, augment: Augmentation | None = None, *, train: bool = True
) -> DataLoader[object]:
    """Batches of float32 images (N, C, H, W) in 0..1 and labels (N), as the tutorials have them.

    Args:
        root: the folder of the data.
        batch_size: images in a batch.
        augment: of which the shift and the flip are done, by RandomCrop and RandomHorizontalFlip.
        train: the shuffled training images, or the test images in their order.
    """
    changes: list[object] = []
    if augment is not None and augment.shift:
        changes.append(transforms.RandomCrop(IMAGE_SHAPE[1:], padding=augment.shift))
    if augment is not None and augment.flip:
        changes.append(transforms.RandomHorizontalFlip(augment.flip))
    transform = transforms.Compose([*changes, transforms.ToTensor()])
    return DataLoader(FashionMNIST(str(root), train=train, transform=transform), batch_size, shuffle=train)


@dataclass(frozen=True)
class UsualEpoch:
    """A part of an epoch of the tutorials' loop, in float32, without a schedule.

    Args:
        network: images (N, C, H, W) to logits (N, K).
        loss: of logits and labels.
        optimizer: makes the optimizer of the parameters.
        root: the folder of the data.
        batch_size: images in a batch.
        augment: see `usual_loader`.
        batches: how many are trained on.
    """

    network: nn.Module
    loss: nn.Module
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    root: Path
    batch_size: int
    augment: Augmentation
    batches: int

    def __call__(self) -> tuple[int, float]:
        """How many images, in how many seconds."""
        network = usual_order(self.network).to(memory_format=torch.contiguous_format).train()
        loader: Any = usual_loader(self.root, self.batch_size, self.augment)
        optimizer = self.optimizer(network.parameters())
        start, images_seen = time.perf_counter(), 0
        for images, labels in itertools.islice(loader, self.batches):
            optimizer.zero_grad()
            loss = self.loss(network(images), labels)
            loss.backward()
            optimizer.step()
            images_seen += len(labels)
        return images_seen, time.perf_counter() - start


def usual_order(network: nn.Module) -> nn.Module:
    """The network with each maximum taken after the ReLU that follows it, as everybody writes it: the same function."""
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i in range(len(layers) - 1):
            if isinstance(layers[i], nn.MaxPool2d) and isinstance(layers[i + 1], nn.ReLU):
                layers[i], layers[i + 1] = layers[i + 1], layers[i]
    return network
