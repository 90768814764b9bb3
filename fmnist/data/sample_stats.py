"""A data loader that tracks the loss of each image, for data pruning, and its prediction, for self-distillation."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, distributed
from torch.nn import functional

from fmnist.data.loader import BatchLoader, epoch_generator

EASY = 0.75
"""Fraction of the images that counts as easy."""
PRUNED_EPOCHS = 0.85
"""Fraction of the epochs that leave out easy images; later epochs leave out images at random."""
Prune = Annotated[float, Ge(0), Le(EASY)]
Distillation = Annotated[float, Ge(0), Le(0.5)]  # at most half: the image's own label keeps the largest part


class SampleStatsLoader(BatchLoader):
    """Serve batches that depend on each image's loss and prediction when it was last served, as given to `record`.

    Data pruning: each epoch leaves out the same number of images, drawn at random from the easiest three quarters. The
    smaller the loss of an image, the easier it is; an image that was never served is the hardest. The last epochs draw
    from all images: the hard ones are not representative, wrong labels are among them.
    Source: Qin et al., InfoBatch, https://arxiv.org/abs/2303.04947. There the easy images are those whose loss is below
    the mean, the easy images that are served count double, and the last epochs have all images.

    Self-distillation: soft labels (N, K) are a weighted mean of the label and the network's last prediction for the
    image. The weight of the prediction grows linearly from 0 to `self_distillation`. With alternating flips the
    prediction is that for the mirror image.
    Source: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets,
    https://arxiv.org/abs/2006.12000

    Losses and predictions are part of the position, as the order of an epoch depends on them. With several processes,
    each one has those of all images.

    Args:
        prune: fraction of the images that an epoch leaves out.
        self_distillation: weight of the predictions at the end of the training.
        epochs: epochs of the whole training. None if it has no limit: then all epochs leave out easy images, and the
            weight of the predictions is constant.
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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(images, labels, batch_size, shuffle_seed, rank, world_size, flip_seed)
        self.num_classes = num_classes
        self.left_out = int(prune * len(images))
        self.self_distillation = self_distillation
        self.epochs = epochs
        self.losses = torch.full((len(images),), torch.inf, device=images.device)
        """Loss of each image (N) when it was last served."""
        self.predictions = self._one_hot(labels) if self_distillation else None
        """Predicted probabilities of each image (N, K) when it was last served; its label if it never was."""
        self._order = torch.arange(len(images))
        """Order of the current epoch."""

    @property
    def count(self) -> int:
        return len(self.images) - self.left_out

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for images, labels, *flipped in super().__iter__():
            yield images, labels if self.predictions is None else self._soft_labels(labels, self.predictions), *flipped

    def _soft_labels(self, labels: Tensor, predictions: Tensor) -> Tensor:
        """Return the soft labels (N, K) of the batch that is being served."""
        number = self._served - 1
        progress = 1.0 if self.epochs is None else (self.epoch + number / len(self)) / self.epochs
        served = self._part(self._indices(number))
        return self._one_hot(labels).lerp(predictions[served], self.self_distillation * progress)

    def _one_hot(self, labels: Tensor) -> Tensor:
        return functional.one_hot(labels, self.num_classes).float()

    def _indices(self, number: int) -> Tensor:
        """Return the indices (N) of the images in batch `number` of the current epoch, over all processes."""
        return self._order[number * self.batch_size : (number + 1) * self.batch_size]

    def record(self, number: int, logits: Tensor, labels: Tensor) -> None:
        """Keep the losses and predictions of the current epoch's batch `number`, counted from 0.

        The logits are (N, K), the labels (N), or soft labels (N, K) of mixed images: those of this process's part.
        """
        logits, indices = logits.float(), self._indices(number)
        if self.predictions is not None:
            self.predictions[indices] = self._of_all_parts(logits.softmax(dim=1), len(indices))
            labels = self.labels[self._part(indices)]
        losses = functional.cross_entropy(logits, labels, reduction="none")
        self.losses[indices] = self._of_all_parts(losses, len(indices))

    def _of_all_parts(self, part: Tensor, size: int) -> Tensor:
        """Return the values of a whole batch (`size`, ...) from those of this process's part (N, ...)."""
        if self.world_size == 1:
            return part
        values = part.new_zeros(size, *part.shape[1:])
        self._part(values).copy_(part)
        distributed.all_reduce(values)
        return values

    def start_epoch(self, served: int) -> Tensor:
        if not served:  # a resumed epoch keeps the order in its position: the losses have changed since it started
            self._order = self.order(self.epoch).to(self.images.device)
        return self._order

    def order(self, epoch: int) -> Tensor:
        """Return the indices of the images in the order of an epoch, which depends on the current losses."""
        assert self.shuffle_seed is not None
        generator = epoch_generator(self.shuffle_seed, epoch)
        order = torch.randperm(len(self.images), generator=generator)
        if self.epochs is not None and epoch >= round(PRUNED_EPOCHS * self.epochs):
            return order[: self.count]
        # The stable sort of the random order draws among images of the same loss.
        easiest = self.losses.cpu()[order].argsort(stable=True)[: int(EASY * len(order))]
        drawn = torch.randperm(len(easiest), generator=generator)[: self.left_out]
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[easiest[drawn]] = False
        return order[kept]

    def position(self) -> dict[str, Any]:
        stats = {"order": self._order, "losses": self.losses}
        if self.predictions is not None:
            stats["predictions"] = self.predictions
        return {**super().position(), **{name: values.cpu().clone() for name, values in stats.items()}}

    def restore_position(self, position: dict[str, Any]) -> None:
        super().restore_position(position)
        device = self.images.device
        self._order, self.losses = position["order"].to(device), position["losses"].to(device)
        if self.predictions is not None:
            self.predictions = position["predictions"].to(device)
