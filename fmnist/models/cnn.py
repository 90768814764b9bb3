"""Convolutional network."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, MinLen
from torch import Tensor, nn

from fmnist.models.layers import (
    ACTIVATIONS,
    Activation,
    Count,
    DropoutRate,
    GlobalPooling,
    L2Pool2d,
    Reduction,
    linear_head,
    output_size,
    per_block,
    same_padding,
)

Padding = Literal["same"] | Annotated[int, Ge(0)]
Pooling = Literal["max", "average", "l2", "none"]
POOLINGS: dict[Pooling, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "l2": L2Pool2d}
POOLING_SIZE = 2


class CNN(nn.Module):
    """Apply blocks of convolutions, each with batch norm and activation, and pooling; then linear layers.

    An argument of the blocks is one value for all of them, or a list with one value for each.

    Args:
        image_shape, num_classes: (C, H, W) of the images, and the number of logits, K.
        channels: number of filters of each block's convolution, or a list for a block of several: [32, [32, 64], 128].
        kernel_size: width and height of the filters.
        stride: step of the filters.
        padding: zeros on each side; "same" keeps the size at stride 1.
        batch_norm: batch norm after each convolution, which then has no bias.
        activation: relu, silu, ..., after each convolution and hidden layer.
        pooling: pooling of 2x2 windows at stride 2, once in each block; "max" comes before the last batch norm and
            activation, the others after them.
        global_pooling: input of the linear layers: "none" takes all pixels of the last channels, the others their mean,
            their maximum, or both.
        hidden: widths of the linear layers between the blocks and the logits, each with activation and dropout.
        dropout: rate of dropout after each hidden layer, or on the features without hidden layers.

    Raises:
        ValueError: if a list has another length than `channels`, or a kernel is larger than its input.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        channels: Annotated[Sequence[Count | Annotated[Sequence[Count], MinLen(1)]], MinLen(1)],
        kernel_size: Count | Sequence[Count] = 3,
        stride: Count | Sequence[Count] = 1,
        padding: Padding | Sequence[Padding] = "same",
        batch_norm: bool = True,
        activation: Activation = "relu",
        pooling: Pooling | Sequence[Pooling] = "max",
        global_pooling: Reduction | Literal["none"] = "none",
        hidden: Sequence[Count] = (),
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        blocks = len(channels)
        kernels = per_block("kernel_size", kernel_size, blocks)
        strides = per_block("stride", stride, blocks)
        paddings = [
            same_padding(kernel) if pad == "same" else int(pad)
            for pad, kernel in zip(per_block("padding", padding, blocks), kernels, strict=True)
        ]
        poolings = per_block("pooling", pooling, blocks)

        convolutions = [[block] if isinstance(block, int) else [*block] for block in channels]
        incoming, *size = image_shape
        layers: list[nn.Module] = []
        number, total = 0, sum(map(len, convolutions))
        for i, widths in enumerate(convolutions):
            for position, outgoing in enumerate(widths, start=1):
                number += 1
                name = f"convolution {number} of {total}"
                size = _shrink(size, name, kernels[i], strides[i], paddings[i])
                layers.append(nn.Conv2d(incoming, outgoing, kernels[i], strides[i], paddings[i], bias=not batch_norm))
                normalised = [nn.BatchNorm2d(outgoing)] if batch_norm else []
                activated = ACTIVATIONS[activation]()
                kind: Pooling = poolings[i] if position == len(widths) else "none"
                pooled: list[nn.Module] = []
                if kind != "none":
                    size = _shrink(size, f"pooling after {name}", POOLING_SIZE, POOLING_SIZE)
                    pooled.append(POOLINGS[kind](POOLING_SIZE))
                if kind == "max":
                    # Before the activation, which then has a quarter of the pixels: a training step of three
                    # convolutions is 1.3 times as fast (2 cores, bf16).
                    layers += [*pooled, *normalised, activated]
                else:
                    layers += [*normalised, activated, *pooled]
                incoming = outgoing
        self.blocks = nn.Sequential(*layers)
        if global_pooling == "none":
            self.features: nn.Module = nn.Flatten()
            width = incoming * size[0] * size[1]
        else:
            self.features = GlobalPooling(global_pooling)
            width = incoming * len(self.features.kinds)
        self.head = linear_head(width, tuple(hidden), num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.features(self.blocks(images)))
        return logits


def _shrink(size: list[int], layer: str, kernel: int, stride: int, padding: int = 0) -> list[int]:
    """Return height and width after a layer, which must be at least 1."""
    after = [output_size(side, kernel, stride, padding) for side in size]
    if min(after) < 1:
        raise ValueError(
            f"the network shrinks to nothing: {layer} has a {kernel}x{kernel} kernel, "
            f"but only {size[0]}x{size[1]} pixels reach it (padding {padding}): fewer model.channels, "
            "model.padding=same or model.pooling=none leave more"
        )
    return after
