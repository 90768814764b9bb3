"""The usual way, as the tutorials have it: image by image through torchvision's transforms."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from fmnist.data.augment import Augmentation
from fmnist.data.info import IMAGE_SHAPE


class Epoch(NamedTuple):
    """What was trained on, and how long it took."""

    images: int
    seconds: float


def usual_loop(
    network: nn.Module,
    loss_function: nn.Module,
    optimizer: Callable[..., Optimizer],
    loader: Iterable[Any],
    batches: int,
    device: str = "cpu",
) -> Epoch:
    """Trains in the tutorials' words: float32, maxima after the activation, no fused optimizer, no schedule.

    Args:
        network: is trained, and changed into what the tutorials write.
        loss_function: of logits and labels.
        optimizer: makes one for the weights, as a config describes it.
        loader: of images and labels.
        batches: at most that many, and at least one.
        device: where the network computes; each batch is brought there.
    """
    network = usual_order(network).to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    steps = usual_optimizer(optimizer)(network.parameters())
    network.train()
    start, images_seen = time.perf_counter(), 0
    for images, labels in itertools.islice(loader, batches):
        steps.zero_grad()
        loss = loss_function(network(images.to(device)), labels.to(device))
        loss.backward()
        steps.step()
        images_seen += len(labels)
    loss.item()  # a GPU may still be at work
    return Epoch(images_seen, time.perf_counter() - start)


def usual_loader(
    root: Path, batch_size: int, augment: Augmentation | None = None, *, train: bool = True
) -> DataLoader[object]:
    """BatchLoader of float32 images (N, C, H, W) in 0..1 and labels (N), as the tutorials have them.

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


def usual_order(network: nn.Module) -> nn.Module:
    """The network with each maximum taken after the ReLU that follows it, as everybody writes it: the same function."""
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i in range(len(layers) - 1):
            if isinstance(layers[i], nn.MaxPool2d) and isinstance(layers[i + 1], nn.ReLU):
                layers[i], layers[i + 1] = layers[i + 1], layers[i]
    return network


def usual_optimizer(optimizer: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """The same optimizer as somebody writes it who hasn't heard of `fused`."""
    assert isinstance(optimizer, functools.partial)
    return functools.partial(optimizer.func, **{**optimizer.keywords, "fused": False})
