"""A data loader that takes whole batches out of tensors in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

FLIP_EPOCH = -1
"""The epoch in the seed of the flips; no epoch has this number."""


@dataclass(eq=False, repr=False)
class BatchLoader:
    """Serve each batch by one index into the images and labels, on the device that holds them. There are no workers.

    The order of an epoch depends only on the seed and the epoch's number. A training resumes in the middle of an epoch
    from `position()`, with any number of processes.

    With several processes, each one serves its part of every batch. The sizes of the parts differ by at most one image,
    and a part may be empty.

    With a `flip_seed`, a batch has a third tensor (N), bool: which of its images to flip. Each image is flipped in
    every other epoch; the seed decides for each image whether these are the even or the odd epochs.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N).
        batch_size: images in a batch, over all processes; the last batch of an epoch may be smaller.
        shuffle_seed: seed of the orders; None serves the images in their order in memory.
        rank: index of this process.
        world_size: number of processes.
        flip_seed: seed of the flips; None serves images and labels only.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    shuffle_seed: int | None = None
    rank: int = 0
    world_size: int = 1
    flip_seed: int | None = None
    epoch: int = field(default=0, init=False)
    _served: int = field(default=0, init=False)
    """Number of batches of the epoch that were served."""
    _resume_at: dict[str, int] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    @property
    def count(self) -> int:
        """Number of images in an epoch."""
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        resume_at, self._resume_at = self._resume_at, None
        self._served = resume_at["served"] if resume_at and resume_at["epoch"] == self.epoch else 0
        order = self.start_epoch(self._served)
        tensors = [self.images, self.labels]
        if self.flip_seed is not None:
            tensors.append(self.flipped(self.epoch).to(self.images.device))
        for index in order.split(self.batch_size)[self._served :]:
            self._served += 1
            part = self._part(index)
            # index_select copies image by image; images[part] copies pixel by pixel and takes 14 times as long.
            yield tuple(tensor.index_select(0, part) for tensor in tensors)

    def _part(self, batch: Tensor) -> Tensor:
        """Return this process's part (n, ...) of a whole batch (N, ...), as a view."""
        return batch.tensor_split(self.world_size)[self.rank] if self.world_size > 1 else batch

    def images_in(self, number: int) -> int:
        """Return the number of images in an epoch's batch `number`, counted from 0, over all processes."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def weight(self, number: int) -> float:
        """Return the factor for this process's loss of batch `number`, so that their mean is the loss of the batch."""
        images = self.images_in(number)
        part = images // self.world_size + (self.rank < images % self.world_size)
        return part * self.world_size / images

    def start_epoch(self, served: int) -> Tensor:
        """Return the order of the current epoch (N), of which a resumed training has served some batches before."""
        return self.order(self.epoch).to(self.images.device)

    def order(self, epoch: int) -> Tensor:
        """Return the indices of the images (N) in the order of an epoch."""
        if self.shuffle_seed is None:
            return torch.arange(len(self.images))
        return torch.randperm(len(self.images), generator=epoch_generator(self.shuffle_seed, epoch))

    def flipped(self, epoch: int) -> Tensor:
        """Return which images an epoch flips, (N), bool."""
        assert self.flip_seed is not None
        bits = torch.randint(2, (len(self.images),), generator=epoch_generator(self.flip_seed, FLIP_EPOCH))
        return (bits + epoch) % 2 == 0

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """The place where Lightning looks for `set_epoch`. With a `sampler` it would warn under `overfit_batches`."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch; Lightning calls it before each epoch."""
        self.epoch = epoch

    def position(self) -> dict[str, Any]:
        """Return the current position, as plain values and tensors."""
        return {"epoch": self.epoch, "served": self._served}

    def restore_position(self, position: dict[str, Any]) -> None:
        """Resume at a position, if the next epoch is the position's; a later epoch starts at its first batch."""
        self.epoch, self._served = position["epoch"], position["served"]
        self._resume_at = {"epoch": self.epoch, "served": self._served}

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: Lightning's fit loop may set up the data before it restores a loader's state.

        A loader without this method makes Lightning warn that it can't resume.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing; see `restore_position`."""


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of an epoch's random numbers."""
    # torch's Mersenne Twister gives unrelated orders for consecutive seeds; the factor separates the epochs of runs.
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)
