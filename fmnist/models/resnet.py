"""Residual networks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from annotated_types import Ge, MinLen
from torch import Tensor, nn

from fmnist.models.layers import (
    ACTIVATIONS,
    Activation,
    Count,
    DropoutRate,
    GlobalPooling,
    Reduction,
    output_size,
    per_block,
)

WIDE_RESNET_CHANNELS = (16, 32, 64)  # of the three stages, at width 1


class ResNet(nn.Module):
    """Apply a stem, stages of residual blocks, global pooling and a linear layer.

    A block consists of convolution, batch norm, activation, convolution, batch norm, the addition of its input, and
    activation. The first block of each stage except the first halves height and width.
    Source: He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385. A block that
    changes the shape averages its input over 2x2 pixels before the 1x1 convolution, as in He et al., Bag of Tricks,
    https://arxiv.org/abs/1812.01187

    Args:
        image_shape, num_classes: (C, H, W) of the images, and the number of logits, K.
        channels: number of filters of each stage.
        depth: number of blocks of each stage; one value for all stages or a list.
        stem_kernel: width and height of the stem's filters.
        stem_stride: step of the stem's filters; 2 leaves a quarter of the pixels to the blocks.
        stem_channels: number of filters of the stem; None takes that of the first stage.
        stem_pooling: max pooling of 2x2 windows after the stem's convolution.
        global_pooling: what the logits get of each channel: mean, maximum, or both.
        activation: relu, silu, ...
        dropout: rate of dropout before the logits.

    Raises:
        ValueError: if `depth` has another length than `channels`, or the images are too small for so many stages.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        channels: Annotated[Sequence[Count], MinLen(1)] = (64, 128, 256),
        depth: Count | Sequence[Count] = 2,
        stem_kernel: Count = 3,
        stem_stride: Count = 1,
        stem_channels: Count | None = None,
        stem_pooling: bool = False,
        global_pooling: Reduction = "mean",
        activation: Activation = "relu",
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        incoming = stem_channels or channels[0]
        self.stem = nn.Sequential(
            _stem(image_shape, incoming, stem_kernel, stem_stride, halvings=len(channels) - 1 + stem_pooling),
            *([nn.MaxPool2d(2, ceil_mode=True)] if stem_pooling else []),
            nn.BatchNorm2d(incoming),
            ACTIVATIONS[activation](),
        )
        depths = per_block("depth", depth, len(channels))
        self.blocks = _stages(partial(_Block, activation=activation), incoming, channels, depths)
        self.features = GlobalPooling(global_pooling)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels[-1] * len(self.features.kinds), num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.features(self.blocks(self.stem(images))))
        return logits


class _Block(nn.Module):
    def __init__(self, incoming: int, outgoing: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(incoming, outgoing, stride),
            nn.BatchNorm2d(outgoing),
            ACTIVATIONS[activation](),
            _convolution(outgoing, outgoing),
            nn.BatchNorm2d(outgoing),
        )
        shortcut: list[nn.Module] = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        if incoming != outgoing:
            shortcut += [nn.Conv2d(incoming, outgoing, 1, bias=False), nn.BatchNorm2d(outgoing)]
        self.shortcut = nn.Sequential(*shortcut) if shortcut else nn.Identity()
        self.activation = ACTIVATIONS[activation]()

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.activation(self.residual(features) + self.shortcut(features))
        return result


class WideResNet(nn.Module):
    """Wide residual network WRN-depth-width, with batch norm and activation before each convolution.

    Source: Zagoruyko and Komodakis, Wide Residual Networks, https://arxiv.org/abs/1605.07146

    Args:
        image_shape, num_classes: (C, H, W) of the images, and the number of logits, K.
        depth: number of layers in the paper's count, 6 * n + 4 with n blocks in each of the three stages.
        width: factor of the 16, 32 and 64 filters of the three stages.
        stem_kernel: width and height of the stem's filters.
        stem_stride: step of the stem's filters; 2 leaves a quarter of the pixels to the blocks.
        activation: relu, silu, ...
        dropout: rate of dropout between the two convolutions of a block.

    Raises:
        ValueError: if the depth is not 6 * n + 4, or the images are too small.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        depth: Annotated[int, Ge(10)] = 28,
        width: Count = 10,
        stem_kernel: Count = 3,
        stem_stride: Count = 1,
        activation: Activation = "relu",
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"depth={depth}: must be 6 * n + 4: 10, 16, 22, 28, 34, 40, ...")
        self.stem = _stem(image_shape, WIDE_RESNET_CHANNELS[0], stem_kernel, stem_stride, halvings=2)
        channels, depths = [width * count for count in WIDE_RESNET_CHANNELS], 3 * [(depth - 4) // 6]
        block = partial(_WideBlock, activation=activation, dropout=dropout)
        self.blocks = _stages(block, WIDE_RESNET_CHANNELS[0], channels, depths)
        self.last = nn.Sequential(nn.BatchNorm2d(channels[-1]), ACTIVATIONS[activation]())
        self.features = GlobalPooling("mean")
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.features(self.last(self.blocks(self.stem(images)))))
        return logits


class _WideBlock(nn.Module):
    def __init__(self, incoming: int, outgoing: int, stride: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(incoming), ACTIVATIONS[activation]())
        self.residual = nn.Sequential(
            _convolution(incoming, outgoing, stride),
            nn.BatchNorm2d(outgoing),
            ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            _convolution(outgoing, outgoing),
        )
        reshape = stride > 1 or incoming != outgoing
        self.shortcut = nn.Conv2d(incoming, outgoing, 1, stride, bias=False) if reshape else None

    def forward(self, features: Tensor) -> Tensor:
        normalised = self.first(features)
        shortcut = features if self.shortcut is None else self.shortcut(normalised)
        result: Tensor = self.residual(normalised) + shortcut
        return result


def _stages(
    block: Callable[[int, int, int], nn.Module], incoming: int, channels: Sequence[int], depths: Sequence[int]
) -> nn.Sequential:
    """Return the blocks of all stages, made by block(in, out, stride). Later stages start with stride 2.

    `incoming` is the number of channels of the stem; `channels` and `depths` have one value for each stage.
    """
    blocks = []
    for stage, (outgoing, depth) in enumerate(zip(channels, depths, strict=True)):
        for i in range(depth):
            blocks.append(block(incoming, outgoing, 2 if stage and i == 0 else 1))
            incoming = outgoing
    return nn.Sequential(*blocks)


def _stem(image_shape: tuple[int, int, int], channels: int, kernel: int, stride: int, halvings: int) -> nn.Conv2d:
    """Return the first convolution, which must leave enough pixels for the halvings after it."""
    padding = (kernel - stride + 1) // 2 if kernel > stride else 0
    side = min(output_size(side, kernel, stride, padding) for side in image_shape[1:])
    if side < 2**halvings:
        raise ValueError(
            f"the network shrinks to nothing: the stem leaves {max(side, 0)} pixels a side for {halvings} halvings: "
            "a smaller model.stem_stride or model.stem_kernel leaves more; model.channels has the stages of a ResNet"
        )
    return nn.Conv2d(image_shape[0], channels, kernel, stride, padding, bias=False)


def _convolution(incoming: int, outgoing: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 3, stride, padding=1, bias=False)
