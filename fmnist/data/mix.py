"""Mixup and CutMix: images made of two images of a batch, with soft labels."""

import torch
from torch import Tensor
from torch.nn import functional


def mix(images: Tensor, labels: Tensor, kept: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return each image mixed with the one before it in the batch (the first with the last), and soft labels (N, K).

    Args:
        images: (N, C, H, W), float.
        labels: (N).
        kept: weight of the image itself, 0 to 1: one number for each image (N, 1, 1), or for each pixel (N, H, W).
        num_classes: K.
    """
    one_hot = functional.one_hot(labels, num_classes).float()
    weight = kept.mean(dim=(1, 2))[:, None]
    return images.roll(1, 0).lerp(images, kept[:, None]), one_hot.roll(1, 0).lerp(one_hot, weight)


def outside_rectangles(fraction: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Return 1 outside of a random rectangle in each image and 0 inside, (N, H, W), as CutMix defines it.

    A rectangle has the image's aspect ratio, and its centre is uniformly distributed. The fraction (N) of each image
    outside of it is larger where the rectangle is cut off at the edges.
    """
    y, x = torch.rand(2, len(fraction), generator=generator, device=fraction.device)
    half = (1 - fraction).sqrt() / 2
    rows = between(height, (height * (y - half)).round(), (height * (y + half)).round()).float()
    columns = between(width, (width * (x - half)).round(), (width * (x + half)).round()).float()
    return 1 - rows[:, :, None] * columns[:, None, :]  # five times as fast as with bools


def between(size: int, start: Tensor, end: Tensor) -> Tensor:
    """Return which of the positions 0..size-1 lie in each of N ranges [start, end): (N, size), bool."""
    position = torch.arange(size, device=start.device)
    return (position >= start[:, None]) & (position < end[:, None])


def sample_beta(alpha: float, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Return random numbers (count) of the distribution Beta(alpha, alpha)."""
    # a / (a + b) of two gamma variates; a variate of alpha is one of alpha + 1 times U^(1/alpha). In logarithms, as
    # that power underflows for small alpha: torch.distributions puts a fourth of Beta(0.001, 0.001) in the middle.
    a, b = torch._standard_gamma(torch.full((2, count), alpha + 1.0, device=device), generator).log()
    log_u, log_v = -torch.empty(2, count, device=device).exponential_(generator=generator)
    samples: Tensor = torch.sigmoid(a - b + (log_u - log_v) / alpha)
    return samples
