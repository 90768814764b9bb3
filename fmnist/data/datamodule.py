"""The LightningDataModule: the three splits, their data loaders, and the preprocessing of a batch."""

import functools
import logging
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from lightning.pytorch import LightningDataModule
from torch import Tensor

from fmnist.config.keys import MAX_SEED
from fmnist.data.augment import Augmentation
from fmnist.data.datasets.base import ImageDataset, Split
from fmnist.data.info import DatasetInfo
from fmnist.data.loader import BatchLoader
from fmnist.data.sample_stats import Distillation, Prune, SampleStatsLoader
from fmnist.data.splits import Share, complete, read_excluded

log = logging.getLogger(__name__)

EXCLUDE = "data.exclude"
"""The name of the list of excluded images in `hashes`."""


class ImageDataModule(LightningDataModule):
    """Split a dataset's images into training, validation and test images.

    The pixels stay in memory as uint8, on the Trainer's device. Normalisation, and the augmentation of training
    batches, act on whole batches there. Labels (N) become soft labels (N, K) with mixed images or self-distillation.

    Args:
        source: the dataset.
        augment: augmentation of the training images.
        batch_size: images in a training batch, over all processes.
        eval_batch_size: images in a validation or test batch. It affects speed and memory, not results.
        val_size: number of training images that are used for validation instead, or their fraction, stratified by
            class; 0 trains on all. A dataset with validation images of its own validates on these, unless it is 0.
        test_size: number or fraction of images that are used for tests, where the dataset has set none aside.
        split_seed: seed of their choice, apart from `seed`: runs with different seeds validate on the same images.
        exclude: CSV file with the columns split and index, whose training images are not trained on. The index is that
            in the dataset's own training images. Images that are validated on stay.
        prune: fraction of the training images that each epoch leaves out, mostly easy ones; see `SampleStatsLoader`.
        self_distillation: weight of the network's own predictions in the labels at the end of the training; see
            `SampleStatsLoader`.
        seed: seed of the order of the training images.

    Raises:
        ValueError: if the files aren't available; if a split or a class gets no images; if `self_distillation`
            is used with mixed images.
    """

    def __init__(
        self,
        source: ImageDataset,
        augment: Augmentation,
        batch_size: Annotated[int, Ge(1)],
        eval_batch_size: Annotated[int, Ge(1)] = 1000,
        val_size: Annotated[int, Ge(0)] | Share = 5000,
        test_size: Annotated[int, Ge(1)] | Share | None = None,
        split_seed: Annotated[int, Ge(0), Le(MAX_SEED)] = 0,
        exclude: str | None = None,
        prune: Prune = 0.0,
        self_distillation: Distillation = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if self_distillation and augment.mixes:
            raise ValueError(
                f"self_distillation={self_distillation}: must be 0 with augment.mixup or augment.cutmix, as a "
                "prediction for a mixed image is not one for the image"
            )
        self.source = source
        self.augment = augment
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.test_size = test_size
        self.split_seed = split_seed
        self.exclude = exclude
        self.prune = prune
        self.self_distillation = self_distillation
        self.seed = seed
        self.hashes: dict[str, str] = {}
        """SHA-256 of each file or split of the dataset, and of the list of excluded images, after `prepare_data`."""
        self.splits: dict[str, Split] = {}
        """Images (N, C, H, W) and labels (N) of "train", "val" and "test", after `setup`."""
        self._train_loader: BatchLoader | None = None
        self._position: dict[str, Any] | None = None
        self._excluded: Tensor | None = None

    @functools.cached_property
    def dataset(self) -> DatasetInfo:
        """The facts of the dataset, for some of which it is read. Those of a checkpoint may replace them."""
        return self.source.info

    @property
    def root(self) -> Path | None:
        """The dataset's folder."""
        return self.source.root

    def prepare_data(self) -> None:
        if self.hashes:
            return
        hashes, splits = dict(self.source.contents.hashes), self.source.contents.splits
        if self.exclude is not None:
            self._excluded, hashes[EXCLUDE] = read_excluded(Path(self.exclude), len(splits["train"][1]))
        self.hashes = hashes

    def setup(self, stage: str | None = None) -> None:
        if stage == "fit":  # each training has a loader of its own, and a position only if it is resumed
            self._train_loader = self._position = None
        if self.splits:
            return
        self.prepare_data()  # which Lightning calls in one of several processes
        given, sizes = self.source.contents.splits, (self.val_size, self.test_size, self.split_seed)
        self.splits = complete(given, *sizes, self._excluded)
        if self._excluded is not None:
            left_out = sum(len(labels) for _, labels in given.values()) - sum(len(y) for _, y in self.splits.values())
            listed = len(self._excluded.unique())
            log.info("data.exclude: %s of %s listed training images are left out", f"{left_out:,}", f"{listed:,}")
        assert self.dataset  # before the images go from which it may be made
        del self.source.contents

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the training batches, which Lightning saves with each checkpoint."""
        return {} if self._train_loader is None else {"train": self._train_loader.position()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at a position. Lightning calls it before the training loader exists, or after (FSDP)."""
        self._position = state_dict["train"]
        if self._train_loader is not None:
            self._train_loader.restore_position(self._position)

    def train_dataloader(self) -> BatchLoader:
        if self._train_loader is None:  # the same object throughout a training
            self._train_loader = self._create_train_loader()
            if self._position is not None:
                self._train_loader.restore_position(self._position)
        return self._train_loader

    def _create_train_loader(self) -> BatchLoader:
        flip_seed = self.seed if self.augment.alternate else None
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        if overfit or not self.needs_predictions:
            shuffle_seed = None if overfit else self.seed  # the same batches in every epoch
            return self._loader("train", self.batch_size, shuffle_seed, flip_seed)
        images, labels = self._on_device("train")
        return SampleStatsLoader(
            images,
            labels,
            self.batch_size,
            self.seed,
            len(self.dataset.classes),
            self.prune,
            self.self_distillation,
            self._epochs,
            flip_seed,
            *self._place,
        )

    @property
    def needs_predictions(self) -> bool:
        """True if the training loader has to be told what the network predicts."""
        return bool(self.prune or self.self_distillation)

    @property
    def _epochs(self) -> int | None:
        """Epochs of the whole training; None without a limit or a Trainer."""
        epochs = -1 if self.trainer is None else self.trainer.max_epochs or -1
        return epochs if epochs > 0 else None

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._loader("val", self.eval_batch_size) if self.val_size else []

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", self.eval_batch_size)

    def _loader(
        self, split: str, batch_size: int, shuffle_seed: int | None = None, flip_seed: int | None = None
    ) -> BatchLoader:
        """Return a loader of this process's part of the batches of a split."""
        return BatchLoader(*self._on_device(split), batch_size, shuffle_seed, *self._place, flip_seed)

    @property
    def _place(self) -> tuple[int, int]:
        """This process's number and the number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _on_device(self, split: str) -> tuple[Tensor, Tensor]:
        """Return all images and labels of a split, on the Trainer's device."""
        images, labels = self.splits[split]
        if self.trainer is None:
            return images, labels
        device = self.trainer.strategy.root_device
        return images.to(device), labels.to(device)

    def transfer_batch_to_device(
        self, batch: tuple[Tensor, ...], device: torch.device, dataloader_idx: int
    ) -> tuple[Tensor, ...]:
        """Return the batch unchanged, as it is on the device already."""
        return batch

    def on_after_batch_transfer(self, batch: tuple[Tensor, ...], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        return self.prepared(batch, training=self.trainer is not None and bool(self.trainer.training))

    def prepared(self, batch: tuple[Tensor, ...], *, training: bool) -> tuple[Tensor, Tensor]:
        """Return the network's input (N, C, H, W), augmented in training, and labels (N) or soft labels (N, K)."""
        images, labels, *flipped = batch
        if not training:
            return self.dataset.normalise(images), labels
        augment = self.augment.in_epoch(0 if self.trainer is None else self.trainer.current_epoch, self._epochs)
        # Mixed after the normalisation, in float32: the mean of two bytes is no byte.
        pixels = self.dataset.normalise(augment(images, None, *flipped))
        return augment.mixed(pixels, labels, len(self.dataset.classes))
