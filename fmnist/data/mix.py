"""Images that are made of two, and share the labels of both."""

import torch
from torch import Tensor
from torch.nn import functional


def mix(images: Tensor, labels: Tensor, kept: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mixes each image with the one before it in the batch, and the first one with the last.

    Args:
        images: (N, C, H, W), floats.
        labels: (N).
        kept: how much of each image stays, 0 to 1: one number for all of it (N, 1, 1), or one for each pixel (N, H, W).
        num_classes: K.

    Returns:
        The images, and the share of each class in them (N, K), float32.
    """
    shares = functional.one_hot(labels, num_classes).float()
    stays = kept.mean(dim=(1, 2))[:, None]
    return images.roll(1, 0).lerp(images, kept[:, None]), shares.roll(1, 0).lerp(shares, stays)


def outside_rectangles(stays: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """1 outside a rectangle in each image, 0 within: (N, H, W), as cutmix has it.

    A rectangle is of the image's shape, and its centre lies anywhere: what reaches beyond the edge is lost, so that
    more may stay than was asked for.

    Args:
        stays: the share of each image that lies outside (N).
        height: H.
        width: W.
        generator: of the random numbers; None takes torch's own for the device.
    """
    y, x = torch.rand(2, len(stays), generator=generator, device=stays.device)
    half = (1 - stays).sqrt() / 2
    rows = between(height, (height * (y - half)).round(), (height * (y + half)).round()).float()
    columns = between(width, (width * (x - half)).round(), (width * (x + half)).round()).float()
    return 1 - rows[:, :, None] * columns[:, None, :]  # five times as fast as of bools


def between(size: int, start: Tensor, end: Tensor) -> Tensor:
    """Which of the positions 0..size-1 lie in [start, end), for each of N ranges: (N, size), bool."""
    position = torch.arange(size, device=start.device)
    return (position >= start[:, None]) & (position < end[:, None])


def beta(alpha: float, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Random numbers (count) of the distribution Beta(alpha, alpha)."""
    # a / (a + b) of two gamma variates, each being one of alpha + 1 times U^(1/alpha). By their logarithms, as such a
    # power underflows where alpha is small: torch.distributions puts a fourth of Beta(0.001, 0.001) in the middle.
    a, b = torch._standard_gamma(torch.full((2, count), alpha + 1.0, device=device), generator).log()
    log_u, log_v = -torch.empty(2, count, device=device).exponential_(generator=generator)
    share: Tensor = torch.sigmoid(a - b + (log_u - log_v) / alpha)
    return share
