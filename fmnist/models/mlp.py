"""Multilayer perceptron."""

from collections.abc import Sequence

from torch import Tensor, nn

from fmnist.models.layers import Activation, Count, DropoutRate, linear_head


class MLP(nn.Module):
    """Flatten the image and apply hidden linear layers, each with activation and dropout.

    Args:
        image_shape, num_classes: (C, H, W) of the images, and the number of logits, K.
        hidden: widths of the hidden layers; an empty list gives multinomial logistic regression.
        activation: relu, silu, ..., after each hidden layer.
        dropout: rate of dropout after each hidden layer, or on the pixels without hidden layers.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        hidden: Sequence[Count],
        activation: Activation = "relu",
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.head = linear_head(channels * height * width, tuple(hidden), num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(images.flatten(1))
        return logits
