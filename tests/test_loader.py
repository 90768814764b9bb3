"""Batches by index: orders, alternating flips, parts of several processes, positions."""

import pytest
import torch
from torch import Tensor

from fmnist.data.loader import BatchLoader


def loader(count: int = 25, batch_size: int = 4, seed: int | None = 0, **arguments: int) -> BatchLoader:
    """Return a loader of images of which number i has the value i and the label i + 100."""
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return BatchLoader(images, torch.arange(count) + 100, batch_size, seed, **arguments)


def indices(batch: tuple[Tensor, ...]) -> list[int]:
    images, labels = batch[:2]
    assert images.dtype == torch.uint8
    assert images.shape == (len(labels), 1, 2, 2)
    assert torch.equal(images[:, 0, 0, 0] + 100, labels)
    return (labels - 100).tolist()


def epoch(batches: BatchLoader, number: int) -> list[list[int]]:
    """Return the indices of the images in each batch of an epoch."""
    batches.set_epoch(number)
    return [indices(batch) for batch in batches]


def flat(served: list[list[int]]) -> list[int]:
    return [index for batch in served for index in batch]


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_each_epoch_serves_each_image_once_with_its_label(seed: int | None) -> None:
    batches = loader(seed=seed)
    epochs = [flat(epoch(batches, number)) for number in range(3)]
    assert [sorted(served) for served in epochs] == [list(range(25))] * 3
    assert (epochs[0] == epochs[1] == list(range(25))) == (seed is None)


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(25, 4, [4] * 6 + [1]), (24, 4, [4] * 6), (3, 4, [3]), (3, 1, [1, 1, 1])]
)
def test_last_batch_may_be_smaller(count: int, size: int, sizes: list[int]) -> None:
    batches = loader(count, size)
    assert [len(batch) for batch in epoch(batches, 0)] == sizes
    assert len(batches) == len(sizes)
    assert [batches.images_in(number) for number in range(len(sizes))] == sizes


def test_order_depends_on_seed_and_epoch_only() -> None:
    first = epoch(loader(seed=3), 2)
    used = loader(seed=3)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    for number in (0, 1):
        epoch(used, number)
    assert epoch(used, 2) == first
    assert epoch(loader(batch_size=25, seed=3), 2) == [flat(first)]
    assert used.order(2).tolist() == flat(first)
    assert torch.equal(torch.get_rng_state(), state)
    orders = {tuple(loader(seed=seed).order(number).tolist()) for seed in range(8) for number in range(8)}
    assert len(orders) == 64


@pytest.mark.parametrize("served", range(8))
def test_an_epoch_resumes_at_any_batch(served: int) -> None:
    whole = epoch(loader(), 3)
    first = loader()
    first.set_epoch(3)
    iterator = iter(first)
    before = [indices(next(iterator)) for _ in range(served)]
    position = first.position()
    assert position == {"epoch": 3, "served": served}
    second = loader()
    second.restore_position(position)
    assert second.position() == position
    assert before + epoch(second, 3) == whole
    assert second.position() == {"epoch": 3, "served": 7}
    assert epoch(second, 4) == epoch(loader(), 4)


def test_other_epochs_start_at_their_first_batch() -> None:
    batches = loader()
    batches.restore_position({"epoch": 1, "served": 5})
    assert epoch(batches, 2) == epoch(loader(), 2)
    assert epoch(batches, 1) == epoch(loader(), 1)  # the position was dropped
    next(iter(batches))
    assert epoch(batches, 1) == epoch(loader(), 1)


def flips(batches: BatchLoader, number: int) -> dict[int, bool]:
    """Return which images of an epoch are to be flipped."""
    batches.set_epoch(number)
    return {index: flip for batch in batches for index, flip in zip(indices(batch), batch[2].tolist(), strict=True)}


def test_each_image_is_flipped_in_every_other_epoch() -> None:
    batches = loader(150, 64, flip_seed=0)
    first = flips(batches, 0)
    assert len(first) == 150
    assert sum(first.values()) == pytest.approx(75, abs=20)
    assert flips(batches, 2) == flips(batches, 40) == first
    assert flips(batches, 1) == flips(batches, 3) == {index: not flip for index, flip in first.items()}


def test_flips_depend_on_their_seed_and_the_epoch_only() -> None:
    first = flips(loader(150, 7, seed=0, flip_seed=5), 3)
    state = torch.get_rng_state()
    assert flips(loader(150, 9, seed=None, flip_seed=5), 3) == first
    assert flips(loader(150, 7, flip_seed=6), 3) != first
    assert torch.equal(torch.get_rng_state(), state)
    parts = [flips(loader(150, 7, rank=rank, world_size=9, flip_seed=5), 3) for rank in range(9)]
    assert {index: flip for part in parts for index, flip in part.items()} == first
    assert [len(part) for part in parts][-2:] == [0, 0]


@pytest.mark.parametrize(("count", "size", "processes"), [(25, 4, 2), (25, 4, 3), (7, 3, 3), (2, 9, 3)])
def test_the_parts_of_all_processes_make_up_the_batches_of_one(count: int, size: int, processes: int) -> None:
    alone = loader(count, size)
    parts = [loader(count, size, rank=rank, world_size=processes) for rank in range(processes)]
    assert {len(part) for part in parts} == {len(alone)}
    for number, (whole, *pieces) in enumerate(zip(alone, *parts, strict=True)):
        labels = [piece[1].double() for piece in pieces]
        assert torch.cat(labels).tolist() == whole[1].tolist()
        assert max(map(len, labels)) - min(map(len, labels)) <= 1
        weights = [part.weight(number) for part in parts]
        means = [weight * part.mean() if len(part) else 0.0 for weight, part in zip(weights, labels, strict=True)]
        assert sum(weights) == pytest.approx(processes)
        assert float(sum(means)) / processes == pytest.approx(whole[1].double().mean().item())


def test_an_epoch_of_two_processes_resumes_with_three() -> None:
    two = loader(rank=1, world_size=2)
    iterator = iter(two)
    for _ in range(3):
        next(iterator)
    three = [loader(rank=rank, world_size=3) for rank in range(3)]
    for part in three:
        part.restore_position(two.position())
    rest = [flat(pieces) for pieces in zip(*(epoch(part, 0) for part in three), strict=True)]
    assert rest == epoch(loader(), 0)[3:]
