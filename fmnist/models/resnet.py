"""Residual networks: blocks that add to what they are given."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, MinLen
from torch import Tensor, nn

from fmnist.models.layers import ACTIVATIONS, Activation, Count, DropoutRate, GlobalPooling, Overall, per_block
from fmnist.models.sizes import output_size

WIDE_RESNET_CHANNELS = (16, 32, 64)  # of each stage, at width 1


class ResNet(nn.Module):
    """A stem, stages of residual blocks, one pooling over all pixels, and a linear layer.

    A block is convolution, batch norm, activation, convolution, batch norm; then its input is added, and the activation
    follows. The first block of each stage but the first halves height and width.
    Source: He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385; where a block
    changes the shape, its input is averaged over 2x2 pixels before the 1x1 convolution, as in He et al., Bag of Tricks,
    https://arxiv.org/abs/1812.01187

    Args:
        image_shape: channels, height and width of the images.
        num_classes: K, the number of logits.
        channels: filters in each stage.
        depth: blocks in each stage, one value for all or a list.
        stem_kernel: width and height of the stem's filters.
        stem_stride: 2 lets everything after the stem see a quarter of the pixels.
        stem_channels: filters of the stem; None takes those of the first stage.
        stem_pooling: take the largest of each 2x2 pixels of the stem, for the same end.
        global_pooling: what the linear layer sees of each channel: the mean over its pixels, the largest, or both.
        activation: after the stem and in each block.
        dropout: rate before the logits.

    Raises:
        ValueError: if `depth` hasn't one value for each stage, or the images are too small for so many stages.
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
        global_pooling: Overall = "mean",
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
        blocks: list[nn.Module] = []
        for stage, (outgoing, count) in enumerate(zip(channels, per_block("depth", depth, len(channels)), strict=True)):
            for i in range(count):
                blocks.append(_Block(incoming, outgoing, 2 if stage and i == 0 else 1, activation))
                incoming = outgoing
        self.blocks = nn.Sequential(*blocks)
        self.features = GlobalPooling(global_pooling)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(incoming * len(self.features.kinds), num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, K)."""
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
    """Wide residual network WRN-depth-width: batch norm and activation before each convolution.

    Source: Zagoruyko and Komodakis, Wide Residual Networks, https://arxiv.org/abs/1605.07146

    Args:
        image_shape: channels, height and width of the images.
        num_classes: K, the number of logits.
        depth: layers in the paper's count: 4 and a multiple of 6, of which each stage has a sixth as blocks.
        width: multiple of 16, 32 and 64 filters in the three stages.
        stem_kernel: width and height of the stem's filters.
        stem_stride: 2 lets everything after the stem see a quarter of the pixels.
        activation: before each convolution but the stem.
        dropout: rate between the two convolutions of a block.

    Raises:
        ValueError: if the depth is another number.
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
            raise ValueError(f"depth={depth}: it should be 4 and a multiple of 6, as 10, 16, 22, 28, 40")
        incoming = WIDE_RESNET_CHANNELS[0]
        self.stem = _stem(image_shape, incoming, stem_kernel, stem_stride, halvings=len(WIDE_RESNET_CHANNELS) - 1)
        blocks: list[nn.Module] = []
        for stage, channels in enumerate(WIDE_RESNET_CHANNELS):
            for i in range((depth - 4) // 6):
                stride = 2 if stage and i == 0 else 1
                blocks.append(_WideBlock(incoming, channels * width, stride, activation, dropout))
                incoming = channels * width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.BatchNorm2d(incoming), ACTIVATIONS[activation]())
        self.features = GlobalPooling("mean")
        self.head = nn.Linear(incoming, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, K)."""
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


def _stem(image_shape: tuple[int, int, int], channels: int, kernel: int, stride: int, halvings: int) -> nn.Conv2d:
    """The first convolution, which leaves enough for what follows to halve."""
    padding = (kernel - stride + 1) // 2 if kernel > stride else 0
    side = min(output_size(side, kernel, stride, padding) for side in image_shape[1:])
    if side < 2**halvings:
        raise ValueError(f"the network shrinks to nothing: {max(side, 0)} pixels a side are left by the stem")
    return nn.Conv2d(image_shape[0], channels, kernel, stride, padding, bias=False)


def _convolution(incoming: int, outgoing: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 3, stride, padding=1, bias=False)
