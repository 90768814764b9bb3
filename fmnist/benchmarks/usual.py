"""The usual way, as the tutorials have it: image by image through torchvision's transforms."""

import functools
from collections.abc import Callable
from pathlib import Path

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
