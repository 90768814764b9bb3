"""BatchLoader that remember how the network answered: images that it knows are left out, its answers join the labels."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional

from fmnist.data.loader import BatchLoader, random_numbers

EASY = 0.75
"""The share of the images that counts as easy."""
PRUNED = 0.85
"""The share of all epochs that leaves easy images out, where `prune` does; the others draw from all alike."""
Prune = Annotated[float, Ge(0), Le(EASY)]
Distillation = Annotated[float, Ge(0), Le(0.5)]  # so that an image's own label has the largest share


class SampleStatsLoader(BatchLoader):
    """BatchLoader that depend on what was answered to each image when it was served last, which whoever trains tells.

    Pruning: an epoch leaves images out, drawn anew from the easiest three quarters. An image is the easier the smaller
    its loss was; one that has never been served is the hardest. All epochs have the same number of images. Towards the
    end they are drawn from all alike: the hard ones are no fair sample, wrong labels are among them.
    Source: Qin et al., InfoBatch, https://arxiv.org/abs/2303.04947. There the easy images are those whose loss is less
    than the mean, those that stay count double, and the last epochs have all images.

    Self-distillation: labels are shares of the classes (N, K), and the network's last answer to the image takes a part
    of them, which grows in a straight line from nothing to `self_distillation`. With flips in turns the answer is that
    to the mirror image.
    Source: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets,
    https://arxiv.org/abs/2006.12000

    The orders depend on the seed, the epoch and what is remembered, which is a part of the state.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N).
        batch_size: images in a batch; the last one of an epoch may be smaller.
        shuffle_seed: the seed of the orders.
        num_classes: K.
        prune: the share of the images that an epoch leaves out.
        self_distillation: the part that the answers have in the end.
        epochs: of the whole training; None is without an end, where all epochs leave out easy images, and the answers'
            part doesn't grow.
        flip_seed: as in `BatchLoader`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle_seed: int,
        num_classes: int,
        prune: float = 0.0,
        self_distillation: float = 0.0,
        epochs: int | None = None,
        flip_seed: int | None = None,
    ) -> None:
        super().__init__(images, labels, batch_size, shuffle_seed, flip_seed=flip_seed)
        self.num_classes = num_classes
        self.left_out = int(prune * len(images))
        self.self_distillation = self_distillation
        self.epochs = epochs
        self.losses = torch.full((len(images),), torch.inf, device=images.device)
        """Of each image, when it was served last."""
        self.answers = self._shares(labels) if self_distillation else None
        """The probabilities of the classes (N, K), then; the label, where an image has never been served."""
        self._order = torch.arange(len(images))
        """Of this epoch."""

    @property
    def count(self) -> int:
        return len(self.images) - self.left_out

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for images, labels, *flipped in super().__iter__():
            yield images, labels if self.answers is None else self._taught(labels, self.answers), *flipped

    def _taught(self, labels: Tensor, answers: Tensor) -> Tensor:
        """The shares of the classes (n, K) for the batch that is being served."""
        before = self._served - 1
        progress = 1.0 if self.epochs is None else (self.epoch + before / len(self)) / self.epochs
        return self._shares(labels).lerp(answers[self._batch(before)], self.self_distillation * progress)

    def _shares(self, labels: Tensor) -> Tensor:
        return functional.one_hot(labels, self.num_classes).float()

    def _batch(self, number: int) -> Tensor:
        """The indices (n) of the images of this epoch's batch with that number, counted from 0."""
        return self._order[number * self.batch_size : (number + 1) * self.batch_size]

    def note(self, number: int, logits: Tensor, labels: Tensor) -> None:
        """Keeps what was answered to the images of this epoch's batch with that number, counted from 0.

        Args:
            number: of the batch.
            logits: (n, K).
            labels: (n), or shares of the classes (n, K) where images were mixed.
        """
        logits, images = logits.float(), self._batch(number)
        if self.answers is not None:
            self.answers[images] = logits.softmax(dim=1)
            labels = self.labels[images]
        self.losses[images] = functional.cross_entropy(logits, labels, reduction="none")

    def order(self, epoch: int) -> Tensor:
        """The indices (count) of the images that this epoch serves, as the losses are now."""
        assert self.shuffle_seed is not None
        generator = random_numbers(self.shuffle_seed, epoch)
        order = torch.randperm(len(self.images), generator=generator)
        if self.epochs is not None and epoch >= round(PRUNED * self.epochs):
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
        kept = {"order": self._order, "losses": self.losses}
        if self.answers is not None:
            kept["answers"] = self.answers
        return {**super().state_dict(), **{name: values.cpu().clone() for name, values in kept.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({name: state[name] for name in ("epoch", "served")})
        self._order = state["order"].to(self.images.device)
        self.losses = state["losses"].to(self.images.device)
        if self.answers is not None:
            self.answers = state["answers"].to(self.images.device)
