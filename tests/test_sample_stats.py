"""Data pruning and self-distillation: by value, and in trainings."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic
import torch
from conftest import RunScript

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.sample_stats import SampleStatsLoader
from fmnist.runs import checkpoints


def stats_loader(
    count: int = 20, batch_size: int = 4, seed: int = 0, prune: float = 0.25, **arguments: Any
) -> SampleStatsLoader:
    """Return a loader of images of which number i has the value i and the label i % 10."""
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return SampleStatsLoader(images, torch.arange(count) % 10, batch_size, seed, 10, prune, **arguments)


def logits_of(labels: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Return logits (N, 10) with these losses (N); the next class has the rest of the probability."""
    logits = torch.full((len(labels), 10), -torch.inf)
    logits[range(len(labels)), labels] = 0.0
    logits[range(len(labels)), (labels + 1) % 10] = losses.expm1().log()
    return logits


def run_epoch(loader: SampleStatsLoader, number: int, losses: Sequence[float]) -> list[int]:
    """Return which images an epoch serves, and record the loss of each."""
    loader.set_epoch(number)
    served = []
    for batch, (images, *_) in enumerate(loader):
        indices = images[:, 0, 0, 0].long()
        loader.record(batch, logits_of(indices % 10, torch.tensor(losses)[indices]), indices % 10)
        served += indices.tolist()
    return served


def test_an_epoch_leaves_out_its_fraction_of_the_easiest_three_quarters() -> None:
    loader = stats_loader(20, 4, prune=0.25)
    hard = {0, 3, 13, 16, 19}
    losses = [2.0 + index if index in hard else 0.01 * index for index in range(20)]
    assert (len(loader), loader.count) == (4, 15)
    assert {*run_epoch(loader, 0, losses), *run_epoch(loader, 1, losses)} == {*range(20)}  # images never served first
    left_out = [{*range(20)} - {*run_epoch(loader, number, losses)} for number in range(2, 12)]
    assert all(len(indices) == 5 for indices in left_out)
    assert set.union(*left_out) == {*range(20)} - hard
    assert len({frozenset(indices) for indices in left_out}) > 5


def test_hard_images_are_spread_over_the_epoch() -> None:
    loader = stats_loader(200, 10, prune=0.25)
    losses = [0.01 * (index + 1) for index in range(200)]
    for number in range(4):
        run_epoch(loader, number, losses)
    places = [place for place, index in enumerate(run_epoch(loader, 4, losses)) if index >= 150]
    assert len(places) == 50
    assert sum(places) / 50 == pytest.approx(74.5, abs=10)


def test_the_last_epochs_draw_from_all_images() -> None:
    loader = stats_loader(20, 4, prune=0.25, epochs=4)  # 0.85 of them are three
    losses = [float(index) for index in range(20)]
    left_out = [{*range(20)} - {*run_epoch(loader, number, losses)} for number in range(30)]
    assert all(len(indices) == 5 for indices in left_out)
    assert max(left_out[2]) < 15
    assert set.union(*left_out[3:]) == {*range(20)}


def test_orders_depend_on_seed_epoch_and_losses_only() -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(1)).tolist()

    def orders(seed: int) -> list[list[int]]:
        loader = stats_loader(seed=seed)
        return [run_epoch(loader, number, losses) for number in range(4)]

    first = orders(3)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert orders(3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert orders(4) != first
    assert len({tuple(order) for order in first}) == 4


def test_the_weight_of_predictions_in_the_labels_grows() -> None:
    loader = stats_loader(8, 4, prune=0.0, self_distillation=0.4, epochs=3)
    losses = [0.1 + 0.05 * index for index in range(8)]
    weights = []
    for number in range(3):
        loader.set_epoch(number)
        for batch, (images, labels) in enumerate(loader):
            indices = images[:, 0, 0, 0].long()
            right = torch.tensor(losses)[indices].neg().exp()
            weight = 0.4 * (number + batch / 2) / 3 if number else 0.0  # there is no prediction yet
            expected = torch.zeros(4, 10)
            expected[range(4), indices] = 1 - weight + weight * right
            expected[range(4), indices + 1] = weight * (1 - right)
            torch.testing.assert_close(labels, expected, atol=1e-6, rtol=0)
            loader.record(batch, logits_of(indices, torch.tensor(losses)[indices]), labels)
            weights.append(weight)
    assert weights == pytest.approx([0, 0, 0.4 / 3, 0.2, 0.8 / 3, 1 / 3])
    assert loader.losses.tolist() == pytest.approx(losses, abs=1e-5)  # of the labels, not the soft labels


@pytest.mark.parametrize("served", [0, 1, 3])
@pytest.mark.parametrize("options", [(0.25, 0.0), (0.0, 0.4), (0.25, 0.4)])
def test_an_epoch_resumes_at_any_batch(options: tuple[float, float], served: int) -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(1))

    def new() -> SampleStatsLoader:
        return stats_loader(prune=options[0], self_distillation=options[1], epochs=9)

    def run(loader: SampleStatsLoader, number: int, start: int, end: int) -> list[tuple[int, list[float]]]:
        loader.set_epoch(number)
        seen = []
        for batch, (images, labels) in enumerate(loader, start=start):
            if batch == end:
                break
            indices = images[:, 0, 0, 0].long()
            seen += [*zip(indices.tolist(), labels.tolist(), strict=True)]
            loader.record(batch, logits_of(indices % 10, losses[indices]), labels)
            position.update(loader.position())
        return seen

    position: dict[str, object] = {}
    whole = new()
    expected = [run(whole, number, 0, 9) for number in range(4)]
    first = new()
    seen = [run(first, number, 0, 9) for number in range(2)]
    begun = run(first, 2, 0, served) if served else []
    second = new()
    second.restore_position(dict(position))
    seen += [begun + run(second, 2, served, 9), run(second, 3, 0, 9)]
    assert seen == expected


def test_a_training_records_losses_and_predictions(train: RunScript) -> None:
    overrides = ("optimizer=adamw", "data.prune=0.4", "data.self_distillation=0.4", "loss=mean_squared_error")
    done = train(*overrides, "trainer.max_epochs=4", "test=false")
    assert done.status == 0, done.err
    checkpoint = checkpoints.load(done.run / "checkpoints" / "last.ckpt")
    position = checkpoint[ImageDataModule.__qualname__]["train"]
    assert position["losses"].isfinite().all()
    assert position["losses"].unique().numel() > 400
    assert "predictions" in position
    assert checkpoint["state_dict"]["_metrics.train_metrics.confusion"].sum() == 300


@pytest.mark.parametrize("key", ["prune", "self_distillation"])
def test_sample_stats_know_the_number_of_epochs(data_root: Path, key: str) -> None:
    arguments: dict[str, Any] = {"val_size": 0, key: 0.4}
    module = ImageDataModule(synthetic.dataset(data_root), Augmentation(), 50, **arguments)
    module.prepare_data()
    module.setup()
    assert len(module.train_dataloader()) == (8 if key == "prune" else 12)  # 360 of 600 images, or all
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    for max_epochs, epochs in ((20, 20), (1, 1), (-1, None), (None, None)):
        module.setup("fit")
        module.trainer = SimpleNamespace(
            global_rank=0, world_size=1, overfit_batches=0, max_epochs=max_epochs, strategy=strategy
        )
        loader = module.train_dataloader()
        assert isinstance(loader, SampleStatsLoader)
        assert loader.epochs == epochs


def test_self_distillation_with_mixed_images_is_refused(train: RunScript) -> None:
    done = train("data.self_distillation=0.4", "augment.mixup=0.2")
    done.assert_refused("self_distillation=0.4: must be 0 with augment.mixup or augment.cutmix")
