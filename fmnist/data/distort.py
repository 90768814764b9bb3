"""Random distortions of images, which make a network robust to images unlike those of the dataset.

Each function returns distorted images (N, C, H, W), float32, each with a strength of its own, from images with values
from 0 to 255.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

ANGLE = 45.0
"""Largest rotation, in degrees."""
ZOOM = 1.5
"""Largest factor of the size, larger or smaller."""
SIGMA = (0.3, 2.0)
"""Standard deviation of a blur, in pixels of an image whose shorter side has `SIDE` pixels."""
SIDE = 28
BRIGHTNESS = 3.0
"""Largest factor, brighter or darker."""
CONTRAST = (0.1, 1.0)
"""Factor of the differences from the mean."""
NEGATIVE = (0.4, 0.6)
"""Shares of the negative that leave little contrast, and aren't drawn."""
NOISE = 60.0
"""Largest standard deviation, of 255."""


def distort(images: Tensor, fraction: float, generator: torch.Generator | None = None) -> Tensor:
    """Return images of which each kind of distortion has changed a fraction, drawn at random.

    An image may get several of them, or none. Nothing waits for the device, as the number of images is known.

    Args:
        images: (N, C, H, W), float32, from 0 to 255.
        fraction: from 0 to 1; the number of images is rounded.
        generator: of the random numbers; None takes torch's default one.

    Returns:
        (N, C, H, W), from 0 to 255.
    """
    n, images = len(images), images.clone()
    orders = torch.rand(len(KINDS), n, generator=generator, device=images.device).argsort(dim=1)
    for kind, order in zip(KINDS, orders[:, : round(fraction * n)], strict=True):
        if len(order):
            images.index_copy_(0, order, kind(images.index_select(0, order), generator).clamp_(0, 255))
    return images


def geometry(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Turn and resize images around their middle, sampled bilinearly; pixels that come in are black."""
    angles = _uniform(images, -math.radians(ANGLE), math.radians(ANGLE), generator)
    factors = _uniform(images, -math.log(ZOOM), math.log(ZOOM), generator).exp()
    height, width = images.shape[2:]
    cosine, sine, zero = angles.cos() / factors, angles.sin() / factors, torch.zeros_like(angles)
    # Coordinates go from -1 to 1 along both axes, also where these differ in length.
    rows = (cosine, -sine * height / width, zero), (sine * width / height, cosine, zero)
    theta = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def blur(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Blur images by Gaussians, which are cut off at the edges.

    A product of matrices for each axis: a convolution would need kernels of one size.
    """
    zoom = min(images.shape[2:]) / SIDE
    sigma = zoom * _uniform(images, *SIGMA, generator)
    rows, columns = (_gaussian(side, sigma) for side in images.shape[2:])
    blurred: Tensor = rows[:, None] @ images @ columns[:, None].mT
    return blurred


def brightness(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Make images brighter or darker."""
    return images * _each(_uniform(images, -math.log(BRIGHTNESS), math.log(BRIGHTNESS), generator).exp())


def contrast(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Bring the pixels of each image closer to its mean."""
    return images.mean(dim=(1, 2, 3), keepdim=True).lerp(images, _each(_uniform(images, *CONTRAST, generator)))


def inversion(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Take weighted means of images and their negatives."""
    low, high = NEGATIVE
    share = _uniform(images, 0, low + 1 - high, generator)
    return images.lerp(255 - images, _each(share.where(share < low, share + high - low)))


def noise(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Add Gaussian noise."""
    normal = torch.randn(images.shape, generator=generator, device=images.device)
    return images + normal * _each(_uniform(images, 0, NOISE, generator))


KINDS = (geometry, blur, brightness, contrast, inversion, noise)
"""The distortions, in the order in which they are applied."""


def _uniform(images: Tensor, low: float, high: float, generator: torch.Generator | None) -> Tensor:
    """Return a random number for each image (N)."""
    return torch.rand(len(images), generator=generator, device=images.device) * (high - low) + low


def _each(values: Tensor) -> Tensor:
    """Return one value for each image (N) in the shape (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _gaussian(side: int, sigma: Tensor) -> Tensor:
    """Return the weight of each pixel of a line in each blurred one (N, side, side)."""
    places = torch.arange(side, device=sigma.device)
    distance = (places[:, None] - places)[None] / sigma[:, None, None]
    return (-distance.square() / 2).clamp(min=-30).softmax(dim=2)  # products of subnormal numbers are slow
