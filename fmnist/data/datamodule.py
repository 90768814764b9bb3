"""The splits, and what happens to a batch between memory and network."""

from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le, MinLen
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torchvision.datasets import FashionMNIST

from fmnist.config.keys import MAX_SEED
from fmnist.data.augment import Augmentation
from fmnist.data.info import FASHION_MNIST
from fmnist.data.loader import BatchLoader
from fmnist.data.sample_stats import Distillation, Prune, SampleStatsLoader
from fmnist.data.sources import CHECKSUMS, ensure_files

TRAINING_IMAGES = 60_000


class FashionMNISTDataModule(LightningDataModule):
    """Torchvision's FashionMNIST, split into training, validation and test images.

    The pixels stay in memory as uint8, the device's own in training; augmentation (training batches alone) and
    normalisation act on whole batches, there. Labels (N) are shares of the classes (N, K) where images are mixed, or
    the network's own answers join them.

    Args:
        root: the folder that holds the files, or will.
        augment: applied to training batches.
        batch_size: images in a training batch, over all processes.
        eval_batch_size: images in a validation or test batch; changes speed and memory, not results.
        val_size: how many of the training images validate, stratified by class; 0 trains on all.
        split_seed: which ones; its own seed, so that runs with different seeds validate on the same images.
        prune: the share of the training images that each epoch leaves out, of those that were easy to tell; see
            `SampleStatsLoader`.
        self_distillation: the part of a label that the network's own last answer to the image takes in the end; see
            there.
        verify: take only the published Fashion-MNIST, by its checksums, and get it where it is missing. False takes
            the four files in `root` as they are.
        seed: of the order of training images.

    Raises:
        ValueError: if the files can't be had, or `val_size` leaves nothing to train on; or `prune` or
            `self_distillation` is asked of several processes, or the latter with images that are mixed.
    """

    def __init__(
        self,
        root: Annotated[str, MinLen(1)],
        augment: Augmentation,
        batch_size: Annotated[int, Ge(1)],
        eval_batch_size: Annotated[int, Ge(1)] = 1000,
        val_size: Annotated[int, Ge(0), Le(TRAINING_IMAGES - 1)] = 5000,
        split_seed: Annotated[int, Ge(0), Le(MAX_SEED)] = 0,
        prune: Prune = 0.0,
        self_distillation: Distillation = 0.0,
        verify: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset = FASHION_MNIST
        if self_distillation and augment.mixes:
            raise ValueError(
                f"data.self_distillation={self_distillation} needs images that aren't mixed, as an answer to a mixture "
                "is none to the image: augment.mixup and augment.cutmix should be 0"
            )
        self.root = Path(root)
        self.augment = augment
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.prune = prune
        self.self_distillation = self_distillation
        self.verify = verify
        self.seed = seed
        self.hashes: dict[str, str] = {}
        """SHA-256 of each file, known once `prepare_data` has run."""
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}
        """Images (N, C, H, W) and labels (N) of train, val and test, known once `setup` has run."""

    def prepare_data(self) -> None:
        if not self.hashes:
            self.hashes = ensure_files(self.root, CHECKSUMS if self.verify else None)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        images, labels = _read(self.root, train=True)
        if self.val_size >= len(images):
            raise ValueError(f"data.val_size={self.val_size} leaves nothing of the {len(images)} training images")
        train, val = stratified_split(labels, self.val_size, self.split_seed)
        self.splits = {
            "train": (images[train], labels[train]),
            "val": (images[val], labels[val]),
            "test": _read(self.root, train=False),
        }

    def train_dataloader(self) -> BatchLoader:
        # Overfitting a few batches means the same ones in every epoch.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        flip_seed = self.seed if self.augment.alternate else None
        if self.needs_predictions and not overfit:
            return self._remembering(flip_seed)
        return self._batches("train", self.batch_size, None if overfit else self.seed, flip_seed)

    @property
    def needs_predictions(self) -> bool:
        """Whether the training loader has to be told what the network predicts."""
        return bool(self.prune or self.self_distillation)

    def _remembering(self, flip_seed: int | None) -> SampleStatsLoader:
        """Those of a training by one process.

        Raises:
            ValueError: if there are several.
        """
        images, labels = self.splits["train"]
        if self.trainer is not None:
            if self.trainer.world_size > 1:
                key = "prune" if self.prune else "self_distillation"
                raise ValueError(
                    f"data.{key}={getattr(self, key)} needs a training by one process, as none of several knows the "
                    "answers to all images: it should be 0 there"
                )
            device = self.trainer.strategy.root_device
            images, labels = images.to(device), labels.to(device)
        parts = (self.prune, self.self_distillation, self._epochs, flip_seed)
        return SampleStatsLoader(images, labels, self.batch_size, self.seed, len(self.dataset.classes), *parts)

    @property
    def _epochs(self) -> int | None:
        """Of the whole training; None is without an end, or no training."""
        epochs = -1 if self.trainer is None else self.trainer.max_epochs or -1
        return epochs if epochs > 0 else None

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._batches("val", self.eval_batch_size) if self.val_size else []

    def test_dataloader(self) -> BatchLoader:
        return self._batches("test", self.eval_batch_size)

    def _batches(
        self, split: str, batch_size: int, shuffle_seed: int | None = None, flip_seed: int | None = None
    ) -> BatchLoader:
        """On the Trainer's device, as a whole; of a training by several processes, this one's part of each batch."""
        images, labels = self.splits[split]
        if self.trainer is None:
            return BatchLoader(images, labels, batch_size, shuffle_seed, flip_seed=flip_seed)
        device = self.trainer.strategy.root_device
        place = (self.trainer.global_rank, self.trainer.world_size)
        return BatchLoader(images.to(device), labels.to(device), batch_size, shuffle_seed, *place, flip_seed)

    def transfer_batch_to_device(
        self, batch: tuple[Tensor, ...], device: torch.device, dataloader_idx: int
    ) -> tuple[Tensor, ...]:
        """As it is: the images are there already."""
        return batch

    def on_after_batch_transfer(self, batch: tuple[Tensor, ...], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """What the network gets of a batch, on its device."""
        return self.prepared(batch, training=self.trainer is not None and bool(self.trainer.training))

    def prepared(self, batch: tuple[Tensor, ...], *, training: bool) -> tuple[Tensor, Tensor]:
        """Normalised images, float32, and labels, of uint8 (N, C, H, W) and what else `BatchLoader` serves with them.

        In training they are augmented.
        """
        images, labels, *flipped = batch
        if not training:
            return self.dataset.normalise(images), labels
        augment = self.augment.in_epoch(0 if self.trainer is None else self.trainer.current_epoch, self._epochs)
        # Normalised before they are mixed, where it is the same, as the mean of two bytes needn't be one.
        pixels = self.dataset.normalise(augment(images, None, *flipped))
        return augment.mixed(pixels, labels, len(self.dataset.classes))


def stratified_split(labels: Tensor, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices for training and for validation, sorted, each class with the same share of the validation images.

    Where `val_size` doesn't divide evenly, the classes with the largest remainders give one more.
    """
    classes, counts = labels.unique(return_counts=True)
    exact = counts * val_size / len(labels)
    shares = exact.floor().long()
    shares[(exact - shares).argsort(descending=True, stable=True)[: val_size - int(shares.sum())]] += 1
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, share in zip(classes, shares.tolist(), strict=True):
        members = (labels == label).nonzero().flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:share]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def _read(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Images (N, 1, H, W), uint8, and labels (N), int64."""
    dataset = FashionMNIST(str(root), train=train)
    return dataset.data.unsqueeze(1), dataset.targets
