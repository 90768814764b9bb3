"""Corruptions of images, each in five strengths."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from fmnist.data.mix import between

STRENGTHS = (1, 2, 3, 4, 5)
SIDE = 28
"""Sizes in pixels are of images of this side; in others they are in proportion to the shorter side."""
CHUNK = 1000  # images that are corrupted at once

Change = Callable[[Tensor], Tensor]


def noise(images: Tensor, deviation: float) -> Tensor:
    """Return images with Gaussian noise of a standard deviation in bytes."""
    noisy: Tensor = functional.gaussian_noise(images, sigma=deviation / 255)
    return noisy


def blur(images: Tensor, sigma: float) -> Tensor:
    """Return images blurred by a Gaussian whose standard deviation is in pixels."""
    sigma *= _zoom(images)
    radius = min(math.ceil(3 * sigma), min(images.shape[2:]) - 1)
    blurred: Tensor = functional.gaussian_blur(images, 2 * radius + 1, sigma)
    return blurred


def contrast(images: Tensor, factor: float) -> Tensor:
    """Return images whose differences from their mean are multiplied by a factor."""
    faded: Tensor = functional.adjust_contrast(images, factor)
    return faded


def brightness(images: Tensor, factor: float) -> Tensor:
    """Return images, at random brighter or darker by a factor."""
    return _each_by_one_of(
        images, [functools.partial(functional.adjust_brightness, brightness_factor=f) for f in (factor, 1 / factor)]
    )


def rotation(images: Tensor, degrees: float) -> Tensor:
    """Return images turned by an angle, at random to the left or to the right."""
    return _each_by_one_of(images, [_affine(angle=angle) for angle in (degrees, -degrees)])


def shift(images: Tensor, pixels: float) -> Tensor:
    """Return images moved by whole pixels, at least one, along both axes, in one of the four diagonal directions."""
    step = max(1, round(pixels * _zoom(images)))
    return _each_by_one_of(images, [_affine(translate=[x, y]) for x in (step, -step) for y in (step, -step)])


def scale(images: Tensor, factor: float) -> Tensor:
    """Return images whose content is at random larger or smaller by a factor, from the middle."""
    return _each_by_one_of(images, [_affine(scale=f) for f in (factor, 1 / factor)])


def erasing(images: Tensor, area: float) -> Tensor:
    """Return images in which a rectangle of their shape, at a random place, is black; its area is a fraction."""
    n, _, height, width = images.shape
    tall, wide = round(height * math.sqrt(area)), round(width * math.sqrt(area))
    top, left = torch.randint(height - tall + 1, (n,)), torch.randint(width - wide + 1, (n,))
    rows, columns = between(height, top, top + tall), between(width, left, left + wide)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def inversion(images: Tensor, share: float) -> Tensor:
    """Return the weighted means of images and their negatives, which have the share; 1 is the negative."""
    return images.float().lerp(functional.invert(images).float(), share).round().to(torch.uint8)


def jpeg(images: Tensor, quality: float) -> Tensor:
    """Return images compressed as JPEG with a quality from 1 to 100."""
    pictures = [functional.jpeg(functional.to_pil_image(image), int(quality)) for image in images]  # Pillow's codec
    return torch.stack([functional.pil_to_tensor(picture) for picture in pictures])


def resolution(images: Tensor, fraction: float) -> Tensor:
    """Return images that were reduced to a fraction of their sides, and enlarged again."""
    size = list(images.shape[2:])
    reduced = [max(1, round(fraction * side)) for side in size]
    enlarged: Tensor = functional.resize(functional.resize(images, reduced, antialias=True), size)
    return enlarged


@dataclass(frozen=True)
class Corruption:
    """One way to corrupt images (N, C, H, W), uint8, and its parameter for the strengths 1 to 5."""

    apply: Callable[[Tensor, float], Tensor]
    values: tuple[float, float, float, float, float]
    unit: str

    def value(self, strength: int) -> float:
        """Return the parameter for a strength from 1 to 5."""
        return self.values[strength - 1]


CORRUPTIONS = {
    "noise": Corruption(noise, (10, 25, 40, 60, 90), "standard deviation, of 255"),
    "blur": Corruption(blur, (0.6, 1.0, 1.5, 2.0, 3.0), "standard deviation in pixels of 28"),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.35, 0.2, 0.1), "factor of the differences from the mean"),
    "brightness": Corruption(brightness, (1.25, 1.5, 2, 3, 4), "factor, brighter or darker"),
    "rotation": Corruption(rotation, (5, 15, 30, 45, 60), "degrees, left or right"),
    "shift": Corruption(shift, (1, 2, 3, 4, 6), "pixels of 28 along both axes"),
    "scale": Corruption(scale, (1.1, 1.2, 1.35, 1.5, 1.75), "factor, larger or smaller"),
    "erasing": Corruption(erasing, (0.05, 0.1, 0.2, 0.3, 0.4), "fraction of the area that is black"),
    "inversion": Corruption(inversion, (0.2, 0.4, 0.6, 0.8, 1.0), "share of the negative in the mean"),
    "jpeg": Corruption(jpeg, (50, 25, 12, 6, 3), "quality, of 100"),
    "resolution": Corruption(resolution, (0.75, 0.5, 0.36, 0.25, 0.18), "fraction of the sides"),
}
"""All corruptions. The strengths are this project's own; the idea of five of each is that of Hendrycks and Dietterich,
Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, https://arxiv.org/abs/1903.12261"""


def corrupt(images: Tensor, name: str, strength: int, seed: int) -> Tensor:
    """Return corrupted copies of images (N, C, H, W), uint8, on the CPU; the same ones for the same arguments.

    An image is changed in the same direction at all strengths.

    Args:
        images: with 1 or 3 channels.
        name: of the corruption.
        strength: from 1 to 5.
        seed: of the random numbers; torch's own generator stays as it is.
    """
    corruption = CORRUPTIONS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.cat([corruption.apply(part, corruption.value(strength)) for part in images.split(CHUNK)])


def _zoom(images: Tensor) -> float:
    return min(images.shape[2:]) / SIDE


def _affine(angle: float = 0, translate: Sequence[int] = (0, 0), scale: float = 1) -> Change:
    """Return an affine change, which samples bilinearly and fills with black."""
    return functools.partial(
        functional.affine,
        angle=angle,
        translate=list(translate),
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )


def _each_by_one_of(images: Tensor, changes: Sequence[Change]) -> Tensor:
    """Return images, each after one of the changes, which is drawn for it."""
    drawn = torch.randint(len(changes), (len(images),))
    changed = images.clone()
    for number, change in enumerate(changes):
        members = (drawn == number).nonzero().flatten()
        if len(members):
            changed[members] = change(images[members])
    return changed
