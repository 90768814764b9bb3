"""Whole batches by index, from tensors in memory."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

BEFORE_THE_FIRST = -1
"""An epoch that has no order: its random numbers are those of the flips."""


class BatchLoader:
    """A data loader without workers: a batch is one index into the images and one into the labels, on their device.

    The order of an epoch depends on the seed and the epoch's number alone. Its state (epoch, batches served) lets
    Lightning go on in the middle of an epoch, whatever the number of processes.

    Of several processes each serves its part of every batch. Parts differ by an image at most, and may be empty.

    With a `flip_seed`, a batch also says which of its images are to be flipped, (N), bool: each in every other epoch,
    the even or the odd ones, which the seed alone decides.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N).
        batch_size: images in a batch; the last one of an epoch may be smaller.
        shuffle_seed: the seed of the orders; None serves the images as they lie.
        rank: which part is served.
        ranks: of how many.
        flip_seed: the seed of the flips; None says nothing of them.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        flip_seed: int | None = None,
    ) -> None:
        assert len(images) == len(labels)
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.rank = rank
        self.ranks = ranks
        self.flip_seed = flip_seed
        self.epoch = 0
        self._served = 0
        self._resume_at: dict[str, int] | None = None

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    @property
    def count(self) -> int:
        """Images in an epoch."""
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        resume_at, self._resume_at = self._resume_at, None
        same_epoch = resume_at is not None and resume_at["epoch"] == self.epoch
        self._served = resume_at["served"] if resume_at is not None and same_epoch else 0
        order = self.begin(self._served)
        served = [self.images, self.labels]
        if self.flip_seed is not None:
            served.append(self.flipped(self.epoch).to(self.images.device))
        for index in order.split(self.batch_size)[self._served :]:
            self._served += 1
            part = index.tensor_split(self.ranks)[self.rank] if self.ranks > 1 else index
            # Image by image as a whole: images[part] goes pixel by pixel and takes 14 times as long.
            yield tuple(values.index_select(0, part) for values in served)

    def images_in(self, number: int) -> int:
        """Images of the epoch's batch with this number, counted from 0, over all processes."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def weight(self, number: int) -> float:
        """What the mean over this process's part counts in the mean of all processes, to give that of the batch."""
        images = self.images_in(number)
        part = images // self.ranks + (self.rank < images % self.ranks)
        return part * self.ranks / images

    def begin(self, served: int) -> Tensor:
        """The order of this epoch on the images' device.

        Args:
            served: batches of it that have been served before.
        """
        return self.order(self.epoch).to(self.images.device)

    def order(self, epoch: int) -> Tensor:
        """The indices (N) of the images in the order that this epoch serves them."""
        if self.shuffle_seed is None:
            return torch.arange(len(self.images))
        return torch.randperm(len(self.images), generator=random_numbers(self.shuffle_seed, epoch))

    def flipped(self, epoch: int) -> Tensor:
        """Which images this epoch flips, (N), bool."""
        assert self.flip_seed is not None
        bits = torch.randint(2, (len(self.images),), generator=random_numbers(self.flip_seed, BEFORE_THE_FIRST))
        return (bits + epoch) % 2 == 0

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Where Lightning looks for `set_epoch`. (Of a `sampler` here it would warn when batches are overfitted.)"""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "served": self._served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume_at = dict(state)


def random_numbers(seed: int, epoch: int) -> torch.Generator:
    """The random numbers of an epoch."""
    # Consecutive seeds give unrelated orders in torch's Mersenne Twister; the factor keeps runs' epochs apart.
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)
