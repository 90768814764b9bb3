"""What the networks share: the names of layers and the range of their arguments."""

from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import nn

Count = Annotated[int, Ge(1)]
DropoutRate = Annotated[float, Ge(0), Lt(1)]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


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
