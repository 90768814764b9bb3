"""Epochs that leave easy images out, and labels that the network's own answers join."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import RunScript, press_ctrl_c
from kills import same
from test_mix import last_state

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.data.sample_stats import SampleStatsLoader


def batches(count: int = 20, batch_size: int = 4, seed: int = 0, prune: float = 0.25, **more: Any) -> SampleStatsLoader:
    """Image i holds the value i, and has the label i % 10."""
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return SampleStatsLoader(images, torch.arange(count) % 10, batch_size, seed, prune, **more)


def logits_of(labels: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Answers (n, 10) that have these losses (n): what isn't given to the label goes to the next class."""
    logits = torch.full((len(labels), 10), -torch.inf)
    logits[range(len(labels)), labels] = 0.0
    logits[range(len(labels)), (labels + 1) % 10] = losses.expm1().log()
    return logits


def learn(loader: SampleStatsLoader, number: int, losses: Sequence[float]) -> list[int]:
    """Which images an epoch serves, each of which then has its loss."""
    loader.set_epoch(number)
    served = []
    for place, (images, *_) in enumerate(loader):
        indices = images[:, 0, 0, 0].long()
        loader.note(place, logits_of(indices % 10, torch.tensor(losses)[indices]), indices % 10)
        served += indices.tolist()
    return served


def test_an_epoch_leaves_out_its_share_of_the_easiest_three_quarters() -> None:
    loader = batches(20, 4, prune=0.25)
    hard = {0, 3, 13, 16, 19}
    losses = [2.0 + index if index in hard else 0.01 * index for index in range(20)]
    assert (len(loader), loader.count) == (4, 15)
    for number in (0, 1):  # after which every image has been served, as what hasn't comes first
        assert len({*learn(loader, number, losses)}) == 15
    left_out = [{*range(20)} - {*learn(loader, number, losses)} for number in range(2, 12)]
    assert all(len(indices) == 5 for indices in left_out)
    assert set.union(*left_out) == {*range(20)} - hard
    assert len({frozenset(indices) for indices in left_out}) > 5


def test_what_was_never_served_is_served_next() -> None:
    loader = batches(20, 4, prune=0.25)
    first = learn(loader, 0, [1.0] * 20)
    assert len(first) == 15
    assert {*first, *learn(loader, 1, [1.0] * 20)} == {*range(20)}


def test_the_hard_ones_are_spread_over_the_epoch() -> None:
    loader = batches(200, 10, prune=0.25)
    losses = [0.01 * (index + 1) for index in range(200)]
    for number in range(4):
        learn(loader, number, losses)
    places = [place for place, index in enumerate(learn(loader, 4, losses)) if index >= 150]
    assert len(places) == 50
    assert sum(places) / 50 == pytest.approx(74.5, abs=10)


def test_towards_the_end_all_images_are_drawn_alike() -> None:
    loader = batches(20, 4, prune=0.25, epochs=4)  # 0.85 of them are three
    losses = [float(index) for index in range(20)]
    left_out = [{*range(20)} - {*learn(loader, number, losses)} for number in range(30)]
    assert all(len(indices) == 5 for indices in left_out)
    assert max(left_out[2]) < 15
    assert set.union(*left_out[3:]) == {*range(20)}


def test_the_last_batch_may_be_smaller() -> None:
    loader = batches(21, 4, prune=0.3)  # leaves 6 out
    assert [len(labels) for _, labels in loader] == [4, 4, 4, 3]
    assert [loader.images_in(number) for number in range(4)] == [4, 4, 4, 3]


def test_orders_depend_on_seed_epoch_and_losses_alone() -> None:
    def served(loader: SampleStatsLoader) -> list[list[int]]:
        losses = torch.rand(20, generator=torch.Generator().manual_seed(1)).tolist()
        return [learn(loader, number, losses) for number in range(4)]

    first = served(batches(seed=3))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert served(batches(seed=3)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert served(batches(seed=4)) != first
    assert len({tuple(order) for order in first}) == 4


def test_answers_take_a_growing_part_of_the_labels() -> None:
    loader = batches(8, 4, prune=0.0, self_distillation=0.4, epochs=3)
    losses = [0.1 + 0.05 * index for index in range(8)]
    parts = []
    for number in range(3):
        loader.set_epoch(number)
        for place, (images, labels) in enumerate(loader):
            indices = images[:, 0, 0, 0].long()
            right = torch.tensor(losses)[indices].neg().exp()
            part = 0.4 * (number + place / 2) / 3 if number else 0.0  # there is no answer yet
            expected = torch.zeros(4, 10)
            expected[range(4), indices] = 1 - part + part * right
            expected[range(4), indices + 1] = part * (1 - right)
            assert torch.allclose(labels, expected, atol=1e-6)
            assert labels.dtype == torch.float32
            loader.note(place, logits_of(indices, torch.tensor(losses)[indices]), labels)
            parts.append(part)
    assert parts == pytest.approx([0, 0, 0.4 / 3, 0.2, 0.8 / 3, 1 / 3])
    assert loader.losses.tolist() == pytest.approx(losses, abs=1e-5)  # of the labels as they were


def test_without_an_end_the_part_of_the_answers_does_not_grow() -> None:
    loader = batches(8, 8, prune=0.0, self_distillation=0.4)
    answer = torch.zeros(8, 10)  # all classes alike
    for number, right in ((0, 1.0), (1, 0.64), (7, 0.64)):
        loader.set_epoch(number)
        ((_, labels),) = loader
        assert labels.amax(1).tolist() == pytest.approx([right] * 8)
        loader.note(0, answer, labels)


@pytest.mark.parametrize("cut", range(5))
@pytest.mark.parametrize("parts", [(0.25, 0.0), (0.0, 0.4), (0.25, 0.4)])
def test_goes_on_in_the_middle_of_an_epoch(parts: tuple[float, float], cut: int) -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(1))

    def new() -> SampleStatsLoader:
        return batches(prune=parts[0], self_distillation=parts[1], epochs=9)

    def run(loader: SampleStatsLoader, number: int, served: int, until: int) -> list[tuple[int, list[float]]]:
        loader.set_epoch(number)
        seen = []
        for place, (images, labels) in enumerate(loader, start=served):
            if place == until:
                break
            indices = images[:, 0, 0, 0].long()
            seen += [*zip(indices.tolist(), labels.tolist(), strict=True)]
            loader.note(place, logits_of(indices % 10, losses[indices]), labels)
            state.update(loader.state_dict())
        return seen

    state: dict[str, object] = {}
    whole = new()
    expected = [run(whole, number, 0, 9) for number in range(4)]
    first = new()
    seen = [run(first, number, 0, 9) for number in range(2)]
    begun = run(first, 2, 0, cut) if cut else []
    second = new()
    second.load_state_dict(dict(state))
    seen += [begun + run(second, 2, cut, 9), run(second, 3, 0, 9)]
    assert seen == expected


@pytest.mark.parametrize("words", [["augment.mixup=0.2"], ["data.self_distillation=0.4", "loss=mean_squared_error"]])
def test_a_training_tells_the_answers_and_goes_on_as_if_nothing_had_been(
    words: list[str], train: RunScript, run_script: RunScript, at_batch: Callable[..., pytest.MonkeyPatch]
) -> None:
    words = ["data.prune=0.4", "augment.alternate=true", "trainer.max_epochs=4", "test=false", *words]
    undo = at_batch(16, press_ctrl_c)  # in the third of epochs of 6 batches
    cut = train(*words, "name=cut")
    assert cut.status == 130, cut.err
    run = cut.run
    undo.undo()
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert "from step 16" in resumed.out
    whole = train(*words, "name=whole")
    (other,) = whole.folder.glob("outputs/whole/*")
    assert same(last_state(run), last_state(other))
    kept = torch.load(other / "checkpoints/last.ckpt", weights_only=True)
    (losses,) = find_all(kept["loops"], "losses")
    assert losses.isfinite().all()
    assert losses.unique().numel() > 400
    answers = find_all(kept["loops"], "answers")
    assert [tuple(table.shape) for table in answers] == ([(500, 10)] if "data.self_distillation=0.4" in words else [])
    assert last_state(other)["_metrics.train_metrics.confusion"].sum() == 300


def find_all(tree: object, name: str) -> list[torch.Tensor]:
    """What has this name anywhere in nested dictionaries."""
    if isinstance(tree, dict):
        return [value for key, below in tree.items() for value in ([below] if key == name else find_all(below, name))]
    if isinstance(tree, (list, tuple)):
        return [value for below in tree for value in find_all(below, name)]
    return []


@pytest.mark.parametrize("key", ["prune", "self_distillation"])
def test_several_processes_can_not_remember(data_root: Path, key: str) -> None:
    words: dict[str, Any] = {"val_size": 0, "verify": False, key: 0.4}
    module = FashionMNISTDataModule(str(data_root), Augmentation(), 50, **words)
    module.prepare_data()
    module.setup()
    assert len(module.train_dataloader()) == (8 if key == "prune" else 12)  # 360 of 600 images, or all
    device = SimpleNamespace(root_device=torch.device("cpu"))
    for max_epochs, epochs in ((20, 20), (1, 1), (-1, None), (None, None)):
        module.trainer = SimpleNamespace(world_size=1, overfit_batches=0, max_epochs=max_epochs, strategy=device)
        loader = module.train_dataloader()
        assert isinstance(loader, SampleStatsLoader)
        assert loader.epochs == epochs
    module.trainer = SimpleNamespace(world_size=2, overfit_batches=0)
    with pytest.raises(ValueError, match=rf"^data.{key}=0.4 needs a training by one process"):
        module.train_dataloader()


def test_answers_to_mixed_images_are_refused(train: RunScript) -> None:
    words = ["data.self_distillation=0.4", "augment.mixup=0.2"]
    train(*words).assert_refused("data.self_distillation=0.4 needs images that aren't mixed")
    assert train(*words, "augment.mix=0", "trainer.fast_dev_run=true").status == 0
