"""Epochs that leave easy images out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import RunScript, press_ctrl_c
from kills import same
from test_batches import epoch
from test_mix import last_state

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.data.pruned_batches import PrunedBatches


def batches(count: int = 20, batch_size: int = 4, seed: int = 0, prune: float = 0.25) -> PrunedBatches:
    """Image i holds the value i, and has the label i + 100."""
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return PrunedBatches(images, torch.arange(count) + 100, batch_size, seed, prune)


def learn(loader: PrunedBatches, number: int, losses: Sequence[float]) -> list[int]:
    """Which images an epoch serves, each of which then has its loss."""
    loader.set_epoch(number)
    served = []
    for place, (_, labels) in enumerate(loader):
        indices = (labels - 100).tolist()
        loader.note(place, torch.tensor([losses[index] for index in indices]))
        served += indices
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
    loader = batches(20, 4, prune=0.25)
    loader.until = 3
    losses = [float(index) for index in range(20)]
    left_out = [{*range(20)} - {*learn(loader, number, losses)} for number in range(30)]
    assert all(len(indices) == 5 for indices in left_out)
    assert max(left_out[2]) < 15
    assert set.union(*left_out[3:]) == {*range(20)}


def test_the_last_batch_may_be_smaller() -> None:
    loader = batches(21, 4, prune=0.3)  # leaves 6 out
    assert [len(batch) for batch in epoch(loader, 0)] == [4, 4, 4, 3]
    assert [loader.images_in(number) for number in range(4)] == [4, 4, 4, 3]


def test_orders_depend_on_seed_epoch_and_losses_alone() -> None:
    def served(loader: PrunedBatches) -> list[list[int]]:
        losses = torch.rand(20, generator=torch.Generator().manual_seed(1)).tolist()
        return [learn(loader, number, losses) for number in range(4)]

    first = served(batches(seed=3))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert served(batches(seed=3)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert served(batches(seed=4)) != first
    assert len({tuple(order) for order in first}) == 4


@pytest.mark.parametrize("cut", range(5))
def test_goes_on_in_the_middle_of_an_epoch(cut: int) -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(1)).tolist()

    def run(loader: PrunedBatches, number: int, served: int, until: int) -> list[int]:
        loader.set_epoch(number)
        seen = []
        for place, (_, labels) in enumerate(loader, start=served):
            if place == until:
                break
            seen += (labels - 100).tolist()
            loader.note(place, torch.tensor([losses[label - 100] for label in labels.tolist()]))
            state.update(loader.state_dict())
        return seen

    state: dict[str, object] = {}
    whole = batches()
    expected = [run(whole, number, 0, 9) for number in range(4)]
    first = batches()
    seen = [run(first, number, 0, 9) for number in range(2)]
    begun = run(first, 2, 0, cut) if cut else []
    second = batches()
    second.load_state_dict(dict(state))
    seen += [begun + run(second, 2, cut, 9), run(second, 3, 0, 9)]
    assert seen == expected


def test_a_training_tells_the_losses_and_goes_on_as_if_nothing_had_been(
    train: RunScript, run_script: RunScript, at_batch: Callable[..., pytest.MonkeyPatch]
) -> None:
    words = ["data.prune=0.4", "augment.alternate=true", "augment.mixup=0.2", "trainer.max_epochs=4", "test=false"]
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
    assert last_state(other)["_metrics.train_metrics.confusion"].sum() == 300


def find_all(tree: object, name: str) -> list[torch.Tensor]:
    """What has this name anywhere in nested dictionaries."""
    if isinstance(tree, dict):
        return [value for key, below in tree.items() for value in ([below] if key == name else find_all(below, name))]
    if isinstance(tree, (list, tuple)):
        return [value for below in tree for value in find_all(below, name)]
    return []


def test_several_processes_can_not_prune(data_root: Path) -> None:
    module = FashionMNISTDataModule(str(data_root), Augmentation(), 50, val_size=0, prune=0.4, verify=False)
    module.prepare_data()
    module.setup()
    assert len(module.train_dataloader()) == 8  # 360 of 600 images
    device = SimpleNamespace(root_device=torch.device("cpu"))
    for epochs, until in ((20, 17), (3, 3), (1, 1), (-1, None)):
        module.trainer = SimpleNamespace(world_size=1, overfit_batches=0, max_epochs=epochs, strategy=device)
        assert module.train_dataloader().until == until
    module.trainer = SimpleNamespace(world_size=2, overfit_batches=0)
    with pytest.raises(ValueError, match=r"^data.prune=0.4 needs a training by one process"):
        module.train_dataloader()
