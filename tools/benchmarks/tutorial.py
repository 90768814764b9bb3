"""One epoch of a tutorial's own loop: a unit of time that says on any machine how much faster something else is."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tools.benchmarks.usual import usual_loop

IMAGES = 60_000
"""Of the tutorial's epoch: it trains on all there are."""


def tutorial_epoch_seconds(
    network: nn.Module,
    loss: nn.Module,
    optimizer: Callable[..., Optimizer],
    loader: Iterable[Any],
    steps: int,
    warm_up: int,
    device: str = "cpu",
) -> float:
    """The seconds of an epoch, told from some of its steps.

    Args:
        network: the tutorial's, untrained.
        loss: the tutorial's.
        optimizer: the tutorial's.
        loader: the tutorial's, image by image.
        steps: that are measured.
        warm_up: steps before them.
        device: where the network computes.
    """
    usual_loop(network, loss, optimizer, loader, warm_up, device)
    images, seconds = usual_loop(network, loss, optimizer, loader, steps, device)
    return seconds * IMAGES / images
