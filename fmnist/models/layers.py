"""Layers, layer sizes and argument types that the networks share."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn
from torch.nn import functional

Count = Annotated[int, Ge(1), Le(2**31 - 1)]
DropoutRate = Annotated[float, Ge(0), Lt(1)]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"]
Reduction = Literal["mean", "max", "mean_max"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class L2Pool2d(nn.Module):
    """Return the L2 norm of each window in each channel: (N, C, H, W) -> (N, C, H // size, W // size).

    The gradient of `nn.LPPool2d` is NaN if a whole window is zero, which is common after ReLU.
    """

    EPSILON = 1e-12  # keeps the slope of the square root finite

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        # At least in float32: in float16 the epsilon would be 0, and a square could be infinite.
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        squares = functional.avg_pool2d(wide.square(), self.size) * self.size**2
        return (squares + self.EPSILON).sqrt().to(features.dtype)


class GlobalPooling(nn.Module):
    """Reduce each channel over all its pixels: (N, C, H, W) -> (N, C), or (N, 2C) for mean and maximum."""

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        self.reduction = reduction
        self.kinds = reduction.split("_")

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([_mean(features) if kind == "mean" else _max(features) for kind in self.kinds], dim=1)

    def extra_repr(self) -> str:
        return self.reduction


def _mean(features: Tensor) -> Tensor:
    """Return the mean over all pixels: (N, C, H, W) -> (N, C).

    The gradient of `mean((2, 3))` has the channels first and is then copied: a training step of `experiment=fast_94`
    takes 1.02 times as long (2 cores, bf16).
    """
    return features.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def _max(features: Tensor) -> Tensor:
    """Return the maximum over all pixels: (N, C, H, W) -> (N, C).

    The backward pass of `amax` searches for equal maxima: a training step of `experiment=fast_94` takes 1.03 times as
    long (2 cores, bf16).
    """
    return functional.max_pool2d(features, features.shape[2:]).flatten(1)


def linear_head(
    features: int, hidden: tuple[int, ...], num_classes: int, activation: Activation, dropout: float
) -> nn.Sequential:
    """Return hidden layers, each with activation and dropout, and the layer of the logits: (N, features) -> (N, K).

    Without hidden layers the dropout acts on the features.
    """
    layers: list[nn.Module] = [] if hidden else [nn.Dropout(dropout)]
    for width in hidden:
        layers += [nn.Linear(features, width), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def per_block(name: str, value: Any, blocks: int) -> list[Any]:
    """Return one value for each block, from one for all of them or a list.

    Raises:
        ValueError: if the list has another length.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * blocks
    if len(value) != blocks:
        raise ValueError(f"{name} has {len(value)} values for {blocks} blocks: give one value, or one for each block")
    return list(value)


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Return the width after a convolution or pooling, floor((W - F + 2P) / S) + 1; below 1 if the kernel doesn't fit.

    W is the width before, F the kernel's width, P the padding on each side, S the stride. It holds for heights, too.
    Source: https://cs231n.github.io/convolutional-networks/#conv
    """
    return (size - kernel + 2 * padding) // stride + 1


def same_padding(kernel: int) -> int:
    """Return the padding that keeps the size at stride 1: (F - 1) / 2.

    Raises:
        ValueError: if the kernel size is even.
    """
    if kernel % 2 == 0:
        raise ValueError(f"padding 'same' needs an odd kernel size, got {kernel}; give the padding as a number instead")
    return (kernel - 1) // 2
