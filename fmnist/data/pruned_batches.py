"""Batches of the images that there is still something to learn from."""

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from fmnist.data.batches import Batches, random_numbers

EASY = 0.75
"""The share of the images that counts as easy."""
Share = Annotated[float, Ge(0), Le(EASY)]


class PrunedBatches(Batches):
    """Batches of epochs that leave images out, drawn anew for each epoch from the easiest three quarters.

    An image is the easier the smaller its loss was when it was served last; one that has never been is the hardest.
    All epochs have the same number of images. Their orders depend on the seed, the epoch and those losses, which
    whoever trains has to tell (see `note`), and which are a part of the state.

    Towards the end the images are drawn from all alike: the hard ones are no fair sample, wrong labels are among them.

    Source: Qin et al., InfoBatch, https://arxiv.org/abs/2303.04947. There the easy images are those whose loss is less
    than the mean, those that stay count double, and the last epochs have all images.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N).
        batch_size: images in a batch; the last one of an epoch may be smaller.
        shuffle_seed: the seed of the orders.
        prune: the share of the images that an epoch leaves out.
        until: the epoch from which on all images are alike; None is never.
        flip_seed: as in `Batches`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle_seed: int,
        prune: float,
        until: int | None = None,
        flip_seed: int | None = None,
    ) -> None:
        super().__init__(images, labels, batch_size, shuffle_seed, flip_seed=flip_seed)
        self.until = until
        self.left_out = int(prune * len(images))
        self.losses = torch.full((len(images),), torch.inf, device=images.device)
        """Of each image, when it was served last."""
        self._order = torch.arange(len(images))
        """Of this epoch."""

    @property
    def count(self) -> int:
        return len(self.images) - self.left_out

    def note(self, number: int, losses: Tensor) -> None:
        """Keeps the losses (n) of the images of this epoch's batch with that number, counted from 0."""
        begin = number * self.batch_size
        self.losses[self._order[begin : begin + self.batch_size]] = losses.float()

    def order(self, epoch: int) -> Tensor:
        """The indices (count) of the images that this epoch serves, as the losses are now."""
        assert self.shuffle_seed is not None
        generator = random_numbers(self.shuffle_seed, epoch)
        order = torch.randperm(len(self.images), generator=generator)
        if self.until is not None and epoch >= self.until:
            return order[: self.count]
        # Of those with the same loss the first ones in the order, which is drawn.
        easiest = self.losses.cpu()[order].argsort(stable=True)[: int(EASY * len(order))]
        drawn = torch.randperm(len(easiest), generator=generator)[: self.left_out]
        stays = torch.ones(len(order), dtype=torch.bool)
        stays[easiest[drawn]] = False
        return order[stays]

    def begin(self, served: int) -> Tensor:
        if not served:  # otherwise it goes on in the order that the state has brought
            self._order = self.order(self.epoch).to(self.images.device)
        return self._order

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "order": self._order.cpu().clone(), "losses": self.losses.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({name: state[name] for name in ("epoch", "served")})
        self._order = state["order"].to(self.images.device)
        self.losses = state["losses"].to(self.images.device)
