"""Several views of an image, or several networks that look at it: one answer. Pure torch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class View(NamedTuple):
    """One way to look at an image."""

    share: float
    """Of the answer."""
    shift: int = 0
    """Pixels that the image moves down and to the right; less than 0: up and to the left. What comes in is black."""
    mirrored: bool = False
    """Afterwards, left and right."""

    def of(self, images: Tensor, black: float) -> Tensor:
        """Normalised images (N, C, H, W), of which black pixels have the value `black`, as this view shows them."""
        if self.shift:
            edges = (self.shift, -self.shift, self.shift, -self.shift)
            images = functional.pad(images, edges, value=black)
        return images.flip(-1) if self.mirrored else images


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(1.0),),
    "flip": (View(1 / 2), View(1 / 2, mirrored=True)),
    "flip_shift": (
        View(1 / 4),
        View(1 / 4, mirrored=True),
        *(View(1 / 8, shift, mirrored) for shift in (1, -1) for mirrored in (False, True)),
    ),
}
"""Test-time augmentations by name.

Source of the shifts and shares: Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (airbench), "Multi-crop
evaluation", https://arxiv.org/abs/2404.00498. There the logits are averaged, and what comes in is the image's edge.
"""


class TestTimeAugmentation(nn.Module):
    """A network that looks at each image in several views.

    Args:
        network: normalised images (N, C, H, W) to logits (N, K).
        views: their shares sum up to 1.
        black: the value of a black pixel.
    """

    def __init__(self, network: nn.Module, views: Sequence[View], black: float) -> None:
        super().__init__()
        self.network = network
        self.views = views
        self.black = black

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), as `average_predictions` gives them."""
        return average_predictions(
            [self.network(view.of(images, self.black)) for view in self.views], [view.share for view in self.views]
        )


def average_predictions(logits: Sequence[Tensor], shares: Sequence[float] | None = None) -> Tensor:
    """Logits (N, K) whose softmax is the mean of the softmax of others.

    Args:
        logits: (N, K) each.
        shares: what each counts, 1 in all; None lets all count the same.
    """
    shares = shares or [1 / len(logits)] * len(logits)
    # In single precision at least, and as logarithms, in which no probability becomes 0.
    answers = [values.to(torch.promote_types(values.dtype, torch.float32)).log_softmax(dim=1) for values in logits]
    weights = torch.tensor(shares, dtype=answers[0].dtype, device=answers[0].device).log()
    return (torch.stack(answers) + weights[:, None, None]).logsumexp(dim=0)
