"""The splits, the batches that a Trainer gets, and resuming within an epoch."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from synthetic import TEST, TRAINING
from torch import Tensor
from torchvision.datasets import FashionMNIST

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import FASHION_MNIST
from fmnist.data.loader import BatchLoader
from fmnist.data.splits import stratified_split

normalise = FASHION_MNIST.normalise


def data(root: Path, **arguments: Any) -> ImageDataModule:
    """Return a data module of the synthetic files, set up."""
    arguments = {"augment": Augmentation(), "batch_size": 64, "val_size": 100} | arguments
    module = ImageDataModule(synthetic.dataset(root), **arguments)
    module.prepare_data()
    module.setup()
    return module


def test_normalised_pixels_by_value() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    normalised = normalise(pixels)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, torch.tensor([-0.810198, -0.243626, 2.022663]))
    assert pixels.tolist() == [0, 51, 255]


def unbalanced_labels() -> Tensor:
    """Return 50, 30, 19 and 1 labels of the classes 0, 1, 2 and 9."""
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 19 + [9])
    return labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("val_size", "sizes"),
    [
        (0, {}),
        (1, {0: 1}),
        (7, {0: 4, 1: 2, 2: 1}),  # 3.5, 2.1, 1.33, 0.07
        (10, {0: 5, 1: 3, 2: 2}),  # 5, 3, 1.9, 0.1
        (33, {0: 17, 1: 10, 2: 6}),  # 16.5, 9.9, 6.27, 0.33
        (99, {0: 49, 1: 30, 2: 19, 9: 1}),  # 49.5, 29.7, 18.81, 0.99
    ],
)
def test_split_is_complete_sorted_and_stratified(val_size: int, sizes: dict[int, int]) -> None:
    labels = unbalanced_labels()
    train, val = stratified_split(labels, val_size, seed=0)
    assert torch.cat([train, val]).sort().values.tolist() == list(range(100))
    assert all(torch.equal(part, part.sort().values) for part in (train, val))
    classes, counts = labels[val].unique(return_counts=True)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == sizes


def test_splits_are_those_of_torchvision(data_root: Path) -> None:
    module = data(data_root)
    train, test = FashionMNIST(str(data_root), train=True), FashionMNIST(str(data_root), train=False)
    assert [len(labels) for _, labels in module.splits.values()] == [TRAINING - 100, 100, TEST]
    for split, indices in zip(("train", "val"), stratified_split(train.targets, 100, 0), strict=True):
        images, labels = module.splits[split]
        assert torch.equal(images, train.data[indices].unsqueeze(1))
        assert torch.equal(labels, train.targets[indices])
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert module.splits["val"][1].bincount().tolist() == [10] * 10
    assert torch.equal(module.splits["test"][0], test.data.unsqueeze(1))
    assert torch.equal(module.splits["test"][1], test.targets)
    files = {file.name for file in (data_root / "FashionMNIST" / "raw").iterdir()}
    assert files == module.hashes.keys()


@pytest.mark.parametrize("content", ["other", "truncated"])
def test_the_files_of_old_versions_of_torchvision_are_not_read(data_root: Path, tmp_path: Path, content: str) -> None:
    root = shutil.copytree(data_root, tmp_path / "data")
    processed = root / "FashionMNIST" / "processed"
    processed.mkdir()
    for name, count in (("training.pt", TRAINING), ("test.pt", TEST)):
        torch.save((torch.zeros(count, 28, 28, dtype=torch.uint8), torch.randint(10, (count,))), processed / name)
        if content == "truncated":
            os.truncate(processed / name, 1000)
    assert_same_splits(data(root), data(data_root))


def test_the_files_are_read_once(data_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data_root, tmp_path / "data")
    module = ImageDataModule(synthetic.dataset(root), Augmentation(), batch_size=64, val_size=100)
    module.prepare_data()
    for file in root.rglob("*ubyte"):
        file.write_bytes(file.read_bytes()[:16] + bytes(784 * TRAINING))
    module.setup()
    assert_same_splits(module, data(data_root))
    assert module.hashes == data(data_root).hashes


def test_setup_alone_reads_the_files(data_root: Path) -> None:
    """As Lightning does in each process but the first one of a machine."""
    module = ImageDataModule(synthetic.dataset(data_root), Augmentation(), batch_size=64, val_size=100)
    module.setup()
    assert_same_splits(module, data(data_root))


def assert_same_splits(one: ImageDataModule, other: ImageDataModule) -> None:
    for split in ("train", "val", "test"):
        assert all(torch.equal(a, b) for a, b in zip(one.splits[split], other.splits[split], strict=True))


def test_splits_depend_on_the_split_seed_only(data_root: Path) -> None:
    splits = data(data_root, seed=1).splits
    torch.manual_seed(99)
    same, other = data(data_root, seed=2, batch_size=7).splits, data(data_root, split_seed=1).splits
    for split in splits:
        assert all(torch.equal(a, b) for a, b in zip(splits[split], same[split], strict=True))
        assert torch.equal(splits[split][0], other[split][0]) == (split == "test")


def test_at_least_one_image_must_be_left_to_train_on(data_root: Path) -> None:
    module = data(data_root, val_size=0)
    assert module.val_dataloader() == []
    assert sum(len(labels) for _, labels in module.train_dataloader()) == TRAINING
    assert len(data(data_root, val_size=TRAINING - 1).splits["train"][0]) == 1
    with pytest.raises(ValueError, match=f"^data.val_size={TRAINING}: must be less than {TRAINING}"):
        data(data_root, val_size=TRAINING)


def test_batches_have_the_given_sizes_and_order(data_root: Path) -> None:
    module = data(data_root, batch_size=64, eval_batch_size=90, seed=5)
    images, labels = module.splits["train"]
    served = [batch_labels for _, batch_labels in module.train_dataloader()]
    assert [len(batch_labels) for batch_labels in served] == [64] * 7 + [52]
    assert torch.equal(torch.cat(served), labels[BatchLoader(images, labels, 64, 5).order(0)])
    for split, sizes in (("val", [90, 10]), ("test", [90, 90, 20])):
        loader = module.val_dataloader() if split == "val" else module.test_dataloader()
        assert [len(batch_labels) for _, batch_labels in loader] == sizes
        assert torch.equal(torch.cat([batch_images for batch_images, _ in loader]), module.splits[split][0])


class Recorder(LightningModule):
    """Keeps every batch of every phase; asks for the number of steps as schedules do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        loader = self.trainer.train_dataloader
        if hasattr(loader, "record"):
            loader.record(batch_idx, batch[0].flatten(1)[:, :10], batch[1])
        return self.weight.sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.steps = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def images(self, split: str) -> Tensor:
        return torch.cat([images for images, _ in self.seen[split]])


def quiet_trainer(**arguments: Any) -> Trainer:
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(accelerator="cpu", devices=1, **(dict.fromkeys(off, False) | arguments))


def orders(module: ImageDataModule, epochs: int) -> list[Tensor]:
    loader = BatchLoader(*module.splits["train"], module.batch_size, module.seed)
    return [loader.order(epoch) for epoch in range(epochs)]


def test_training_batches_are_augmented_and_all_batches_normalised(data_root: Path) -> None:
    module, recorder = data(data_root, augment=Augmentation(flip=1.0)), Recorder()
    trainer = quiet_trainer(max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(recorder, module)
    trainer.validate(recorder, module, verbose=False)
    trainer.test(recorder, module, verbose=False)
    images, labels = module.splits["train"]
    order = torch.cat(orders(module, 2))
    assert torch.equal(recorder.images("train"), normalise(images.flip(3))[order])
    assert torch.equal(torch.cat([labels for _, labels in recorder.seen["train"]]), labels[order])
    val, test = normalise(module.splits["val"][0]), normalise(module.splits["test"][0])
    assert torch.equal(recorder.images("val"), torch.cat([val] * 4))  # sanity check, two epochs, validate
    assert torch.equal(recorder.images("test"), test)
    assert not torch.equal(val, val.flip(3))


def test_alternating_flips_restart_with_each_training(data_root: Path) -> None:
    recorder = Recorder()
    module = data(data_root, augment=Augmentation(flip=0.5, alternate=True), seed=4)
    for epochs in (2, 1):
        quiet_trainer(max_epochs=epochs).fit(recorder, module)
    images, labels = module.splits["train"]
    loader = BatchLoader(images, labels, 64, 4, flip_seed=4)
    flipped = [
        torch.where(loader.flipped(epoch)[:, None, None, None], images.flip(3), images)[loader.order(epoch)]
        for epoch in (0, 1, 0)
    ]
    assert torch.equal(recorder.images("train"), normalise(torch.cat(flipped)))


def test_the_last_epochs_are_without_erasing(data_root: Path) -> None:
    module, recorder = data(data_root, augment=Augmentation(erase=1.0, until=0.6)), Recorder()
    quiet_trainer(max_epochs=3).fit(recorder, module)
    images = normalise(module.splits["train"][0])
    served = recorder.images("train").split(len(images))
    unchanged = [
        (seen == images[order]).flatten(1).all(1).float().mean().item()
        for seen, order in zip(served, orders(module, 3), strict=True)
    ]
    assert unchanged == pytest.approx([0, 0, 1], abs=0.02)


def test_training_batches_are_mixed_after_the_normalisation(data_root: Path) -> None:
    module, recorder = data(data_root, augment=Augmentation(mixup=1.0)), Recorder()
    torch.manual_seed(0)
    quiet_trainer(max_epochs=1).fit(recorder, module)
    images, labels = module.splits["train"]
    order = orders(module, 1)[0][:64]
    mixed, soft = recorder.seen["train"][0]
    differ = labels[order].roll(1) != labels[order]
    kept = soft.gather(1, labels[order][:, None])[differ][..., None, None]
    one, other = normalise(images[order])[differ], normalise(images[order.roll(1)])[differ]
    torch.testing.assert_close(mixed[differ], kept * one + (1 - kept) * other, atol=1e-4, rtol=0)
    assert torch.equal(recorder.images("val"), normalise(module.splits["val"][0]).repeat(2, 1, 1, 1))


def test_overfitting_serves_the_same_batches_in_every_epoch(data_root: Path) -> None:
    module, recorder = data(data_root), Recorder()
    quiet_trainer(max_epochs=3, overfit_batches=2, num_sanity_val_steps=0).fit(recorder, module)
    first = normalise(module.splits["train"][0][:128])
    assert torch.equal(recorder.images("train"), torch.cat([first] * 3))


class SaveAt(Callback):
    """Saves a checkpoint after one of the training batches."""

    def __init__(self, step: int, file: Path) -> None:
        self.step = step
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file, weights_only=False)


@pytest.mark.parametrize("step", [8, 11])
@pytest.mark.parametrize("options", [{}, {"prune": 0.3, "self_distillation": 0.4}], ids=["plain", "sample stats"])
def test_a_training_that_asks_for_its_number_of_steps_resumes_within_an_epoch(
    data_root: Path, tmp_path: Path, options: dict[str, float], step: int
) -> None:
    file, expected = tmp_path / "step.ckpt", Recorder()
    arguments = {"max_epochs": 3, "limit_val_batches": 0}
    quiet_trainer(callbacks=[SaveAt(step, file)], **arguments).fit(expected, data(data_root, **options))
    resumed, module = Recorder(), data(data_root, **options)
    assert module.state_dict() == {}
    quiet_trainer(**arguments).fit(resumed, module, ckpt_path=file, weights_only=True)
    assert resumed.steps == expected.steps == len(expected.seen["train"])
    for one, other in zip(resumed.seen["train"], expected.seen["train"][step:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    afresh = Recorder()
    quiet_trainer(**arguments).fit(afresh, module)
    assert torch.equal(afresh.images("train"), expected.images("train"))


def test_a_position_may_be_restored_after_the_loader_exists(data_root: Path) -> None:
    module = data(data_root)
    loader = module.train_dataloader()
    module.load_state_dict({"train": {"epoch": 0, "served": 6}})
    assert module.train_dataloader() is loader
    assert [len(labels) for _, labels in loader] == [64, 52]
