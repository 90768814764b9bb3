"""Random augmentation of whole batches, on their device."""

import functools
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor
from torch.nn import functional

from fmnist.data.distort import distort
from fmnist.data.mix import between, mix, outside_rectangles, sample_beta

Alpha = Annotated[float, Ge(0), Le(100)]  # of Beta(alpha, alpha); with 100 nearly all pairs are mixed half and half
Probability = Annotated[float, Ge(0), Le(1)]
Shift = Annotated[int, Ge(0), Lt(2**10)]
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = (0.3, 3.3)


@dataclass(eq=False)
class Augmentation:
    """Random changes, drawn for each image, applied to the whole batch without a loop over images.

    Args:
        flip: probability of a left-right flip.
        shift: largest shift along each axis, in pixels; all shifts are equally likely. Pixels that come in are black,
            like the background. It is the same as a random crop after padding by `shift`.
        erase: probability that a rectangle is blackened: 2% to 33% of the area, aspect ratio 0.3 to 3.3.
            Source: Zhong et al., Random Erasing, https://arxiv.org/abs/1708.04896
        distort: fraction of the images of a batch that get each kind of random distortion: rotation and size, blur,
            brightness, contrast, inversion, noise. Their strengths are in `fmnist.data.distort`; values are 0 to 255.
        alternate: flip each image in every other epoch instead of at random, so that any two consecutive epochs show it
            both ways. Each epoch flips about half of the images; it requires flip=0.5.
            Source: Jordan, 94% on CIFAR-10 in 3.29 Seconds, https://arxiv.org/abs/2404.00498, section 3.6
        mixup: alpha of mixup, which takes a weighted mean of an image and another one of the batch; the weight is drawn
            from Beta(alpha, alpha). 0 is off.
            Source: Zhang et al., mixup, https://arxiv.org/abs/1710.09412
        cutmix: alpha of CutMix, which replaces a rectangle by that of another image of the batch; the fraction that is
            kept is drawn from Beta(alpha, alpha). 0 is off. With both, each batch takes one of the two at random.
            Source: Yun et al., CutMix, https://arxiv.org/abs/1905.04899
        mix: probability that an image is mixed, if mixup or CutMix is on.
        until: fraction of the epochs that shift, distort, erase and mix. Later epochs only flip, so that the training
            ends on images like those of the test.
            Source: He et al., Data Augmentation Revisited, https://arxiv.org/abs/1909.09148

    Raises:
        ValueError: if `alternate` is set and `flip` isn't 0.5.
    """

    flip: Probability = 0.0
    shift: Shift = 0
    erase: Probability = 0.0
    distort: Probability = 0.0
    alternate: bool = False
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0
    mix: Probability = 1.0
    until: Annotated[float, Gt(0), Le(1)] = 1.0
    _source_maps: dict[tuple[int, int, torch.device], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.alternate and self.flip != 0.5:
            raise ValueError(f"flip={self.flip}: must be 0.5 with alternate=true, which flips half of the images")

    @functools.cached_property
    def _flips_only(self) -> "Augmentation":
        return Augmentation(flip=self.flip, alternate=self.alternate)

    @property
    def mixes(self) -> bool:
        return bool(self.mix and (self.mixup or self.cutmix))

    def in_epoch(self, epoch: int, epochs: int | None) -> "Augmentation":
        """Return the augmentation of an epoch, counted from 0, of all `epochs` (None without a limit)."""
        if epochs is None or epoch < round(self.until * epochs):
            return self
        return self._flips_only

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, flipped: Tensor | None = None
    ) -> Tensor:
        """Return flipped, shifted, distorted and erased images, of the same shape and dtype.

        Args:
            images: (N, C, H, W), of any dtype.
            generator: of the random numbers; None takes torch's default one.
            flipped: which images to flip, (N), bool; None draws them.
        """
        if self.flip or self.shift:
            images = self._flip_and_shift(images, generator, flipped)
        if self.distort:
            distorted = distort(images.float(), self.distort, generator)
            images = (distorted if images.is_floating_point() else distorted.round_()).to(images.dtype)
        if self.erase:
            images = self._erase(images, generator)
        return images

    def mixed(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images and their soft labels (N, K); without mixup and CutMix, the arguments.

        Images are (N, C, H, W), float, and labels (N), of K = `num_classes`.
        """
        if not self.mixes:
            return images, labels
        n, _, height, width = images.shape
        device = images.device
        unmixed = torch.rand(n, generator=generator, device=device) >= self.mix
        kept = []
        if self.mixup:
            kept.append(sample_beta(self.mixup, n, device, generator).masked_fill(unmixed, 1)[:, None, None])
        if self.cutmix:
            fraction = sample_beta(self.cutmix, n, device, generator).masked_fill(unmixed, 1)
            kept.append(outside_rectangles(fraction, height, width, generator))
        if len(kept) == 2:  # both are computed, as a choice in Python would wait for the device
            second = torch.rand((), generator=generator, device=device) < 0.5
            kept = [kept[0].lerp(kept[1], second.float())]
        return mix(images, labels, kept[0], num_classes)

    def _flip_and_shift(self, images: Tensor, generator: torch.Generator | None, flipped: Tensor | None) -> Tensor:
        n, channels, height, width = images.shape
        device, shift = images.device, self.shift
        shifts = (2 * shift + 1) ** 2
        choice = torch.randint(shifts, (n,), generator=generator, device=device)
        if flipped is None:
            flipped = torch.rand(n, generator=generator, device=device) < self.flip
        choice += shifts * flipped
        source = self._source_pixels(height, width, device).index_select(0, choice)
        padded = functional.pad(images, (shift, shift, shift, shift)).flatten(2)
        return padded.gather(2, source[:, None].expand(-1, channels, -1)).view(images.shape)

    def _source_pixels(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return where in the padded image each pixel comes from, for each shift and then for each shift and flip.

        The map (2 * (2 * shift + 1)², H * W) is computed once. One gather with it replaces a loop over images.
        """
        key = (height, width, device)
        if key not in self._source_maps:
            offsets = range(2 * self.shift + 1)
            rows = torch.arange(height, device=device)[:, None] * (width + 2 * self.shift)
            columns = torch.arange(width, device=device)
            maps = [
                (rows + top * (width + 2 * self.shift) + left + order).flatten()
                for order in (columns, columns.flip(0))
                for top in offsets
                for left in offsets
            ]
            self._source_maps[key] = torch.stack(maps)
        return self._source_maps[key]

    def _erase(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        n, _, height, width = images.shape

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=images.device) * (high - low) + low

        chosen = uniform(0, 1) < self.erase
        area = uniform(*ERASED_AREA) * height * width
        aspect = uniform(*(torch.tensor(bound).log().item() for bound in ERASED_ASPECT)).exp()
        tall = (area * aspect).sqrt().round().clamp(max=height)
        wide = (area / aspect).sqrt().round().clamp(max=width)
        top = (uniform(0, 1) * (height - tall + 1)).floor()
        left = (uniform(0, 1) * (width - wide + 1)).floor()
        rows = between(height, top, top + tall)
        columns = between(width, left, left + wide)
        erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
        return images.masked_fill(erased[:, None], 0)
