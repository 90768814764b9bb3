"""What the networks share: the names of layers and the range of their arguments."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn
from torch.nn import functional

Count = Annotated[int, Ge(1), Le(2**31 - 1)]
DropoutRate = Annotated[float, Ge(0), Lt(1)]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"]

Overall = Literal["mean", "max", "mean_max"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class L2Pool2d(nn.Module):
    """The Euclidean norm of each window, channel by channel: (N, C, H, W) -> (N, C, H / size, W / size), rounded down.

    Not `nn.LPPool2d`, whose gradient is NaN where a whole window is zero, as it often is after ReLU.
    """

    EPSILON = 1e-12  # under the root, where its slope would be infinite

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        # In single precision at least: half of it would take the epsilon for 0, and a square for infinity.
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        squares = functional.avg_pool2d(wide.square(), self.size) * self.size**2
        return (squares + self.EPSILON).sqrt().to(features.dtype)


class GlobalPooling(nn.Module):
    """What each channel has over all its pixels: (N, C, H, W) -> (N, C), or (N, 2C) for its mean and its maximum."""

    def __init__(self, kind: Overall) -> None:
        super().__init__()
        self.kind = kind
        self.kinds = kind.split("_")

    def forward(self, features: Tensor) -> Tensor:
        found = [_mean(features) if kind == "mean" else _largest(features) for kind in self.kinds]
        return torch.cat(found, dim=1)

    def extra_repr(self) -> str:
        return self.kind


def _mean(features: Tensor) -> Tensor:
    """Over all pixels: (N, C, H, W) -> (N, C).

    Not `mean((2, 3))`, whose gradient comes with the channels first and is then copied: a training step of
    `experiment=fast_94` takes 1.02 times as long (2 cores, bf16).
    """
    return features.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def _largest(features: Tensor) -> Tensor:
    """Of all pixels: (N, C, H, W) -> (N, C).

    Not `amax`, which looks for equal ones on the way back: a training step of `experiment=fast_94` then takes
    1.03 times as long (2 cores, bf16).
    """
    return functional.max_pool2d(features, features.shape[2:]).flatten(1)


def linear_head(
    features: int, hidden: tuple[int, ...], num_classes: int, activation: Activation, dropout: float
) -> nn.Sequential:
    """Hidden linear layers with activation and dropout, then the one that gives the logits: (N, features) -> (N, K).

    Without a hidden layer the dropout acts on the features themselves.
    """
    layers: list[nn.Module] = [] if hidden else [nn.Dropout(dropout)]
    for width in hidden:
        layers += [nn.Linear(features, width), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def per_block(name: str, value: Any, blocks: int) -> list[Any]:
    """One value for each of the blocks.

    Args:
        name: of the argument.
        value: one for all of them, or a list.
        blocks: how many there are.

    Raises:
        ValueError: if the list is of another length.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * blocks
    if len(value) != blocks:
        raise ValueError(f"{name} has {len(value)} values for {blocks} blocks: give one value, or one for each block")
    return list(value)
