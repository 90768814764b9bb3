import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from synthetic import TEST, TRAINING
from torch import Tensor
from torchvision.datasets import FashionMNIST

from fmnist.data.augment import Augmentation, normalise
from fmnist.data.datamodule import FashionMNISTDataModule, stratified_split
from fmnist.data.loader import BatchLoader


def data(root: Path, **arguments: Any) -> FashionMNISTDataModule:
    """On the made-up files, prepared."""
    arguments = {"augment": Augmentation(), "batch_size": 64, "val_size": 100, "verify": False} | arguments
    module = FashionMNISTDataModule(root, **arguments)
    module.prepare_data()
    module.setup()
    return module


def same(one: dict[str, tuple[Tensor, Tensor]], other: dict[str, tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(a, b) for split in one for a, b in zip(one[split], other[split], strict=True))


def unbalanced_labels() -> Tensor:
    """Of the classes 0, 1, 2 and 9: 50, 30, 19 and 1."""
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 19 + [9])
    return labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("val_size", [0, 1, 7, 10, 33, 99])
def test_split_is_disjoint_complete_sorted_and_of_the_size_asked_for(val_size: int) -> None:
    train, val = stratified_split(unbalanced_labels(), val_size, seed=0)
    assert len(val) == val_size
    assert torch.cat([train, val]).sort().values.tolist() == list(range(100))
    for part in (train, val):
        assert torch.equal(part, part.sort().values)


@pytest.mark.parametrize(
    ("val_size", "shares"),
    [
        (10, {0: 5, 1: 3, 2: 2}),  # 5, 3, 1.9, 0.1
        (7, {0: 4, 1: 2, 2: 1}),  # 3.5, 2.1, 1.33, 0.07
        (33, {0: 17, 1: 10, 2: 6}),  # 16.5, 9.9, 6.27, 0.33
        (99, {0: 49, 1: 30, 2: 19, 9: 1}),  # 49.5, 29.7, 18.81, 0.99
        (1, {0: 1}),
    ],
)
def test_each_class_gives_its_share_and_the_largest_remainders_one_more(val_size: int, shares: dict[int, int]) -> None:
    labels = unbalanced_labels()
    _, val = stratified_split(labels, val_size, seed=0)
    classes, counts = labels[val].unique(return_counts=True)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == shares


@pytest.mark.parametrize("val_size", [5000, 5003, 59_999])
def test_split_of_as_many_images_as_fashion_mnist_has(val_size: int) -> None:
    labels = torch.arange(60_000) % 10
    train, val = stratified_split(labels, val_size, seed=0)
    counts = labels[val].bincount(minlength=10)
    assert len(train) + len(val) == 60_000
    assert counts.sum() == val_size
    assert counts.max() - counts.min() == (val_size % 10 > 0)


def test_images_are_drawn_not_taken_from_the_beginning() -> None:
    _, val = stratified_split(torch.zeros(1000, dtype=torch.long), 100, seed=0)
    assert 400 < val.float().mean() < 600


def test_data_are_those_of_torchvision(data_root: Path) -> None:
    module = data(data_root)
    train, test = FashionMNIST(str(data_root), train=True), FashionMNIST(str(data_root), train=False)
    assert {split: len(labels) for split, (_, labels) in module.splits.items()} == {
        "train": TRAINING - 100,
        "val": 100,
        "test": TEST,
    }
    for split, indices in zip(("train", "val"), stratified_split(train.targets, 100, 0), strict=True):
        images, labels = module.splits[split]
        assert torch.equal(images, train.data[indices].unsqueeze(1))
        assert torch.equal(labels, train.targets[indices])
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
    assert torch.equal(module.splits["test"][0], test.data.unsqueeze(1))
    assert torch.equal(module.splits["test"][1], test.targets)


def test_validation_images_have_ten_of_each_class(data_root: Path) -> None:
    assert data(data_root).splits["val"][1].bincount().tolist() == [10] * 10


def test_splits_depend_on_the_split_seed_alone(data_root: Path) -> None:
    splits = data(data_root, seed=1).splits
    torch.manual_seed(99)
    assert same(data(data_root, seed=2, batch_size=7).splits, splits)
    other = data(data_root, split_seed=1).splits
    assert not torch.equal(other["val"][0], splits["val"][0])
    assert torch.equal(other["test"][0], splits["test"][0])


def test_setup_again_changes_nothing(data_root: Path) -> None:
    module = data(data_root)
    before = dict(module.splits)
    module.prepare_data()
    module.setup("test")
    assert all(module.splits[split][0] is before[split][0] for split in before)


def test_without_validation_images_all_are_trained_on(data_root: Path) -> None:
    module = data(data_root, val_size=0)
    assert len(module.splits["train"][0]) == TRAINING
    assert len(module.splits["val"][0]) == 0
    assert module.val_dataloader() == []
    assert sum(len(labels) for _, labels in module.train_dataloader()) == TRAINING


@pytest.mark.parametrize("val_size", [TRAINING, TRAINING + 1])
def test_validation_images_that_leave_none_to_train_on_are_refused(data_root: Path, val_size: int) -> None:
    with pytest.raises(ValueError, match=f"^data.val_size={val_size} leaves nothing of the {TRAINING} training images"):
        data(data_root, val_size=val_size)


def test_one_image_is_enough_to_train_on(data_root: Path) -> None:
    assert len(data(data_root, val_size=TRAINING - 1).splits["train"][0]) == 1


def test_hashes_are_of_the_four_files(data_root: Path) -> None:
    hashes = data(data_root).hashes
    assert sorted(hashes) == sorted(file.name for file in (data_root / "FashionMNIST" / "raw").iterdir())
    assert all(len(value) == 64 for value in hashes.values())


def test_missing_files_are_refused(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte"):
        data(tmp_path)


def test_batches_are_of_the_sizes_asked_for(data_root: Path) -> None:
    module = data(data_root, batch_size=64, eval_batch_size=90)
    assert [len(labels) for _, labels in module.train_dataloader()] == [64] * 7 + [52]
    assert [len(labels) for _, labels in module.val_dataloader()] == [90, 10]
    assert [len(labels) for _, labels in module.test_dataloader()] == [90, 90, 20]


def test_training_images_are_shuffled_by_the_seed_and_the_others_are_not(data_root: Path) -> None:
    module = data(data_root, seed=5)
    _, labels = module.splits["train"]
    served = torch.cat([labels for _, labels in module.train_dataloader()])
    assert torch.equal(served, labels[BatchLoader(*module.splits["train"], 64, 5).order(0)])
    assert not torch.equal(served, labels)
    for split, loader in (("val", module.val_dataloader()), ("test", module.test_dataloader())):
        assert torch.equal(torch.cat([images for images, _ in loader]), module.splits[split][0])


class Recorder(LightningModule):
    """Learns nothing, and keeps every batch of every phase."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        return self.weight.sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def images(self, split: str) -> Tensor:
        return torch.cat([images for images, _ in self.seen[split]])

    def labels(self, split: str) -> Tensor:
        return torch.cat([labels for _, labels in self.seen[split]])


def quiet_trainer(**arguments: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, **(quiet | arguments))


def test_trainer_augments_training_batches_alone_and_normalises_all(data_root: Path) -> None:
    module, recorder = data(data_root, augment=Augmentation(flip=1.0)), Recorder()
    trainer = quiet_trainer(max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(recorder, module)
    trainer.validate(recorder, module, verbose=False)
    trainer.test(recorder, module, verbose=False)
    images, labels = module.splits["train"]
    orders = [BatchLoader(images, labels, 64, 0).order(epoch) for epoch in (0, 1)]
    assert torch.equal(recorder.images("train"), normalise(images.flip(3))[torch.cat(orders)])
    assert torch.equal(recorder.labels("train"), labels[torch.cat(orders)])
    val, test = normalise(module.splits["val"][0]), normalise(module.splits["test"][0])
    assert torch.equal(recorder.images("val"), torch.cat([val] * 4))  # sanity check, two epochs, validate
    assert torch.equal(recorder.images("test"), test)
    assert not torch.equal(val, val.flip(3))


def test_trainer_flips_in_turns(data_root: Path) -> None:
    recorder = Recorder()
    for served in (2, 1):  # two epochs, then the second one again
        module = data(data_root, augment=Augmentation(flip=0.5, alternate=True), seed=4)
        trainer = quiet_trainer(max_epochs=served)
        trainer.fit(recorder, module)
    images, labels = module.splits["train"]
    batches = BatchLoader(images, labels, 64, 4, flip_seed=4)
    expected = [
        normalise(torch.where(batches.flipped(epoch)[:, None, None, None], images.flip(3), images))[
            batches.order(epoch)
        ]
        for epoch in (0, 1, 0)
    ]
    assert torch.equal(recorder.images("train"), torch.cat(expected))


def test_trainer_shows_the_images_as_they_are_in_the_last_epochs(data_root: Path) -> None:
    module, recorder = data(data_root, augment=Augmentation(erase=1.0, until=0.6)), Recorder()
    quiet_trainer(max_epochs=3).fit(recorder, module)
    images, labels = module.splits["train"]
    orders = [BatchLoader(images, labels, 64, 0).order(epoch) for epoch in range(3)]
    served = recorder.images("train").split(len(images))
    as_they_are = [
        (seen == normalise(images)[order]).flatten(1).all(1) for seen, order in zip(served, orders, strict=True)
    ]
    assert [same.float().mean().item() for same in as_they_are] == pytest.approx([0, 0, 1], abs=0.02)


def test_trainer_mixes_training_batches_alone(data_root: Path) -> None:
    module, recorder = data(data_root, augment=Augmentation(mixup=1.0)), Recorder()
    trainer = quiet_trainer(max_epochs=1)
    torch.manual_seed(0)
    trainer.fit(recorder, module)
    images, labels = module.splits["train"]
    order = BatchLoader(images, labels, 64, 0).order(0)[:64]
    mixed, shares = recorder.seen["train"][0]
    own = shares.gather(1, labels[order][:, None])[:, 0]
    assert (shares.sum(dim=1) - 1).abs().max() < 1e-6
    assert ((shares > 0).sum(dim=1) <= 2).all()
    other = labels[order].roll(1)
    apart = other != labels[order]
    kept = own[apart, None, None, None]
    pair = (normalise(images[order])[apart], normalise(images[order.roll(1)])[apart])
    torch.testing.assert_close(mixed[apart], kept * pair[0] + (1 - kept) * pair[1], atol=1e-4, rtol=0)
    assert recorder.labels("val").dtype == torch.int64
    assert torch.equal(recorder.images("val"), normalise(module.splits["val"][0]).repeat(2, 1, 1, 1))


def test_without_a_trainer_batches_are_normalised_alone(data_root: Path) -> None:
    module = data(data_root, augment=Augmentation(flip=1.0))
    images, labels = module.splits["test"]
    transferred, same_labels = module.on_after_batch_transfer((images, labels), 0)
    assert torch.equal(transferred, normalise(images))
    assert same_labels is labels


def test_overfitting_serves_the_same_batches_in_every_epoch(data_root: Path) -> None:
    module, recorder = data(data_root), Recorder()
    quiet_trainer(max_epochs=3, overfit_batches=2, num_sanity_val_steps=0).fit(recorder, module)
    first = normalise(module.splits["train"][0][:128])
    assert torch.equal(recorder.images("train"), torch.cat([first] * 3))
