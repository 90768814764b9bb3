"""The baseline: the training loop of the tutorials, which loads image by image through torchvision's transforms."""

import functools
import itertools
import tempfile
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

from fmnist.config.build import build_classifier
from fmnist.data.augment import Augmentation
from fmnist.data.datasets.idx_files import find_files
from fmnist.data.info import FASHION_MNIST
from tools.trainings import compose_train

TUTORIAL = "experiment=intro_lenet"
"""The training whose epochs are the unit of time in docs/results.md."""
EPOCH_IMAGES = 60_000


class Timed(NamedTuple):
    """The number of images that a loop has processed, and its seconds."""

    images: int
    seconds: float


def torchvision_dataset(root: Path, **options: Any) -> FashionMNIST:
    """Return torchvision's dataset of the files in a folder, plain or .gz, and of nothing else that lies there.

    Args:
        root: the folder of the data.
        options: arguments of the dataset.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "FashionMNIST", "raw")
        raw.mkdir(parents=True)
        for name, file in find_files(root).items():
            (raw / name).write_bytes(file.data)
        return FashionMNIST(folder, **options)


def tutorial_loader(
    root: Path, batch_size: int, augment: Augmentation | None = None, *, train: bool = True
) -> DataLoader[Any]:
    """Return batches of float32 images (N, C, H, W) in 0..1 and labels (N).

    Args:
        root: the folder of the data.
        batch_size: images in a batch.
        augment: its shift and flip become RandomCrop and RandomHorizontalFlip.
        train: True gives the training images, shuffled; False the test images.
    """
    steps: list[Any] = []
    if augment is not None and augment.shift:
        steps.append(transforms.RandomCrop(FASHION_MNIST.image_shape[1:], padding=augment.shift))
    if augment is not None and augment.flip:
        steps.append(transforms.RandomHorizontalFlip(augment.flip))
    transform = transforms.Compose([*steps, transforms.ToTensor()])
    return DataLoader(torchvision_dataset(root, train=train, transform=transform), batch_size, shuffle=train)


def train_tutorial(
    network: nn.Module,
    loss_function: nn.Module,
    optimizer: Callable[..., Optimizer],
    loader: Iterable[Any],
    batches: int,
    device: str = "cpu",
) -> Timed:
    """Train as the tutorials do: float32, max pooling after the activation, no fused optimizer, no schedule.

    Args:
        network: is trained, and changed into the tutorials' form.
        loss_function: of logits (N, K) and labels (N).
        optimizer: makes the optimizer of the weights.
        loader: of images and labels.
        batches: the number of steps, at least 1.
        device: where the network is.
    """
    network = pool_after_activation(network).to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    steps = not_fused(optimizer)(network.parameters())
    network.train()
    start, count = time.perf_counter(), 0
    for images, labels in itertools.islice(loader, batches):
        steps.zero_grad()
        loss = loss_function(network(images.to(device)), labels.to(device))
        loss.backward()
        steps.step()
        count += len(labels)
    loss.item()  # waits for a GPU
    return Timed(count, time.perf_counter() - start)


def pool_after_activation(network: nn.Module) -> nn.Module:
    """Return the network with ReLU and max pooling in the usual order, which computes the same."""
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i in range(len(layers) - 1):
            if isinstance(layers[i], nn.MaxPool2d) and isinstance(layers[i + 1], nn.ReLU):
                layers[i], layers[i + 1] = layers[i + 1], layers[i]
    return network


def not_fused(optimizer: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Return the same optimizer with `fused=False`, torch's default, where it has this argument."""
    assert isinstance(optimizer, functools.partial)
    fused = {"fused": False} if "fused" in optimizer.keywords else {}
    return functools.partial(optimizer.func, **{**optimizer.keywords, **fused})


def tutorial_epoch_seconds(root: Path, device: str, steps: int, warm_up: int = 20) -> float:
    """Return the seconds of one tutorial epoch on this machine, scaled from some of its steps.

    Args:
        root: the folder of the data.
        device: cpu or cuda.
        steps: that are measured.
        warm_up: steps before them.
    """
    config = compose_train(TUTORIAL)
    classifier = build_classifier(config)
    loader = tutorial_loader(root, config.data.batch_size)
    for count in (warm_up, steps):
        timed = train_tutorial(classifier.network, classifier.loss, classifier.optimizer, loader, count, device)
    return timed.seconds * EPOCH_IMAGES / timed.images
