"""What happens to a batch of images on its device: augmentation, then normalisation."""

from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from torch.nn import functional

from fmnist.classes import IMAGE_SHAPE, MEAN, STD

Probability = Annotated[float, Ge(0), Le(1)]
Shift = Annotated[int, Ge(0), Lt(IMAGE_SHAPE[-1])]


def normalise(images: Tensor) -> Tensor:
    """Pixels 0..255, uint8, (N, C, H, W) to float32 with the mean 0 and standard deviation 1 of Fashion-MNIST."""
    return images.float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


class Augmentation:
    """Random changes, drawn anew for each image, in one pass over the batch without a loop over images.

    Args:
        flip: probability of a left-right flip.
        shift: pixels, at most, that an image moves along each axis, all shifts being equally likely; what comes in
            is black, like the background. The same as a random crop after padding by as much.
        erase: probability that a rectangle is blackened: 2% to 33% of the area, aspect ratio 0.3 to 3.3.
            Source: Zhong et al., Random Erasing, https://arxiv.org/abs/1708.04896
    """

    ERASED_AREA = (0.02, 0.33)
    ERASED_ASPECT = (0.3, 3.3)

    def __init__(self, flip: Probability = 0.0, shift: Shift = 0, erase: Probability = 0.0) -> None:
        self.flip = flip
        self.shift = shift
        self.erase = erase
        self._maps: dict[tuple[int, int, torch.device], Tensor] = {}

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (N, C, H, W) of any type to new ones of the same shape and type.

        The random numbers come from the generator, or from torch's own for the images' device.
        """
        if self.flip or self.shift:
            images = self._flip_and_shift(images, generator)
        if self.erase:
            images = self._erase(images, generator)
        return images

    def _flip_and_shift(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        n, channels, height, width = images.shape
        device, shift = images.device, self.shift
        shifts = (2 * shift + 1) ** 2
        choice = torch.randint(shifts, (n,), generator=generator, device=device)
        choice += shifts * (torch.rand(n, generator=generator, device=device) < self.flip)
        source = self._source_pixels(height, width, device).index_select(0, choice)
        padded = functional.pad(images, (shift, shift, shift, shift)).flatten(2)
        return padded.gather(2, source[:, None].expand(-1, channels, -1)).view(images.shape)

    def _source_pixels(self, height: int, width: int, device: torch.device) -> Tensor:
        """For each shift, then each shift flipped: where in the padded image each pixel comes from.

        (2 * (2 * shift + 1)², H * W), made once. One gather with it does what a loop over shifts would do.
        """
        key = (height, width, device)
        if key not in self._maps:
            side = range(2 * self.shift + 1)
            rows = torch.arange(height, device=device)[:, None] * (width + 2 * self.shift)
            columns = torch.arange(width, device=device)
            maps = [
                (rows + top * (width + 2 * self.shift) + left + order).flatten()
                for order in (columns, columns.flip(0))
                for top in side
                for left in side
            ]
            self._maps[key] = torch.stack(maps)
        return self._maps[key]

    def _erase(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        n, _, height, width = images.shape

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=images.device) * (high - low) + low

        chosen = uniform(0, 1) < self.erase
        area = uniform(*self.ERASED_AREA) * height * width
        low, high = self.ERASED_ASPECT
        aspect = uniform(torch.tensor(low).log().item(), torch.tensor(high).log().item()).exp()
        tall = (area * aspect).sqrt().round().clamp(max=height)
        wide = (area / aspect).sqrt().round().clamp(max=width)
        top = (uniform(0, 1) * (height - tall + 1)).floor()
        left = (uniform(0, 1) * (width - wide + 1)).floor()
        rows = _between(height, top, top + tall)
        columns = _between(width, left, left + wide)
        erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
        return images.masked_fill(erased[:, None], 0)


def _between(size: int, start: Tensor, end: Tensor) -> Tensor:
    """Which of the positions 0..size-1 lie in [start, end), for each of N ranges: (N, size), bool."""
    position = torch.arange(size, device=start.device)
    return (position >= start[:, None]) & (position < end[:, None])
