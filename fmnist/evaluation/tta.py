"""Test-time augmentation, and averages of predictions. Pure torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Transform:
    """A transform of test images.

    Args:
        weight: of its predictions in the mean.
        shift: pixels down and to the right; if negative, up and to the left. Black pixels fill the gap.
        flip: whether the image is mirrored, left to right, after the shift.
    """

    weight: float
    shift: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, black: float) -> Tensor:
        """Return transformed images (N, C, H, W).

        Args:
            images: normalised, (N, C, H, W).
            black: value of a black pixel in them.
        """
        if self.shift:
            images = functional.pad(images, (self.shift, -self.shift, self.shift, -self.shift), value=black)
        return images.flip(-1) if self.flip else images


TTA: dict[str, tuple[Transform, ...]] = {
    "none": (Transform(1.0),),
    "flip": (Transform(1 / 2), Transform(1 / 2, flip=True)),
    "flip_shift": (
        Transform(1 / 4),
        Transform(1 / 4, flip=True),
        *(Transform(1 / 8, shift, flip) for shift in (1, -1) for flip in (False, True)),
    ),
}
"""Test-time augmentations by name.

Source of the shifts and weights: Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (airbench), "Multi-crop
evaluation", https://arxiv.org/abs/2404.00498. There the mean is over logits, and the edge of the image fills the gap.
"""


class TestTimeAugmentation(nn.Module):
    """A network whose prediction is the mean over transforms of each image.

    Args:
        network: normalised images (N, C, H, W) to logits (N, K).
        transforms: their weights sum to 1.
        black: value of a black pixel in the normalised images.
    """

    def __init__(self, network: nn.Module, transforms: Sequence[Transform], black: float) -> None:
        super().__init__()
        self.network = network
        self.transforms = transforms
        self.black = black

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K), see `average_predictions`."""
        logits = [self.network(transform(images, self.black)) for transform in self.transforms]
        return average_predictions(logits, [transform.weight for transform in self.transforms])


def average_predictions(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Return logits (N, K) whose softmax is the weighted mean of the softmax of the given ones.

    Args:
        logits: tensors of shape (N, K).
        weights: one per tensor, with sum 1; None for equal weights.
    """
    weights = weights or [1 / len(logits)] * len(logits)
    # In logarithms no probability underflows to 0; half precision would lose digits.
    log_probabilities = torch.stack(
        [values.to(torch.promote_types(values.dtype, torch.float32)).log_softmax(dim=1) for values in logits]
    )
    log_weights = torch.tensor(weights, dtype=log_probabilities.dtype, device=log_probabilities.device).log()
    return (log_probabilities + log_weights[:, None, None]).logsumexp(dim=0)
