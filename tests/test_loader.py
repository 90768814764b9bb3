import pytest
import torch
from torch import Tensor

from fmnist.data.loader import BatchLoader


def batches(count: int = 25, batch_size: int = 4, seed: int | None = 0, **arguments: int) -> BatchLoader:
    """Image i holds the value i, and has the label i + 100."""
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return BatchLoader(images, torch.arange(count) + 100, batch_size, seed, **arguments)


def epoch(loader: BatchLoader, number: int) -> list[list[int]]:
    """Which images each batch of an epoch has."""
    loader.set_epoch(number)
    return [indices(batch) for batch in loader]


def indices(batch: tuple[Tensor, Tensor]) -> list[int]:
    images, labels = batch
    assert images.dtype == torch.uint8
    assert images.shape == (len(labels), 1, 2, 2)
    assert torch.equal(images[:, 0, 0, 0] + 100, labels)
    return (labels - 100).tolist()


def flat(served: list[list[int]]) -> list[int]:
    return [index for batch in served for index in batch]


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_each_epoch_serves_each_image_once_with_its_label(seed: int | None) -> None:
    loader = batches(seed=seed)
    for number in range(3):
        assert sorted(flat(epoch(loader, number))) == list(range(25))


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(25, 4, [4] * 6 + [1]), (24, 4, [4] * 6), (3, 4, [3]), (3, 1, [1, 1, 1])]
)
def test_last_batch_may_be_smaller(count: int, size: int, sizes: list[int]) -> None:
    loader = batches(count, size)
    assert [len(batch) for batch in epoch(loader, 0)] == sizes
    assert len(loader) == len(sizes)


def test_without_a_seed_the_images_come_as_they_lie() -> None:
    loader = batches(seed=None)
    assert flat(epoch(loader, 0)) == flat(epoch(loader, 5)) == list(range(25))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch(batches(seed=3), 2)
    used = batches(seed=3)
    torch.manual_seed(99)
    for number in (0, 1):
        epoch(used, number)
    assert epoch(used, 2) == first
    assert epoch(batches(batch_size=25, seed=3), 2) == [flat(first)]
    assert used.order(2).tolist() == flat(first)


def test_order_takes_nothing_from_the_global_random_numbers() -> None:
    state = torch.get_rng_state()
    epoch(batches(), 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_seed_and_every_epoch_has_its_own_order() -> None:
    orders = {tuple(batches(seed=seed).order(number).tolist()) for seed in range(8) for number in range(8)}
    assert len(orders) == 64
    assert tuple(range(25)) not in orders


@pytest.mark.parametrize("served", range(8))
def test_goes_on_in_the_middle_of_an_epoch(served: int) -> None:
    whole = epoch(batches(), 3)
    first = batches()
    first.set_epoch(3)
    iterator = iter(first)
    before = [indices(next(iterator)) for _ in range(served)]
    state = first.state_dict()

    second = batches()
    second.load_state_dict(state)
    after = epoch(second, 3)
    assert before + after == whole
    assert epoch(second, 4) == epoch(batches(), 4)


def test_state_is_of_plain_numbers_and_counts_on_after_going_on() -> None:
    loader = batches()
    loader.load_state_dict({"epoch": 1, "served": 2})
    loader.set_epoch(1)
    iterator = iter(loader)
    next(iterator)
    assert loader.state_dict() == {"epoch": 1, "served": 3}


def test_state_of_an_earlier_epoch_does_not_shorten_a_later_one() -> None:
    loader = batches()
    loader.load_state_dict({"epoch": 1, "served": 5})
    assert epoch(loader, 2) == epoch(batches(), 2)
    assert epoch(loader, 1) == epoch(batches(), 1)  # and is forgotten then


def test_epoch_begun_anew_begins_at_its_first_batch() -> None:
    loader = batches()
    next(iter(loader))
    assert epoch(loader, 0) == epoch(batches(), 0)


def flips(loader: BatchLoader, number: int) -> dict[int, bool]:
    """Which images of an epoch are to be flipped."""
    loader.set_epoch(number)
    return {index: flip for *batch, part in loader for index, flip in zip(indices(batch), part.tolist(), strict=True)}


def test_each_image_is_flipped_in_every_other_epoch() -> None:
    loader = batches(150, 64, flip_seed=0)
    first = flips(loader, 0)
    assert len(first) == 150
    assert sum(first.values()) == pytest.approx(75, abs=20)
    assert flips(loader, 2) == flips(loader, 40) == first
    assert flips(loader, 1) == flips(loader, 3) == {index: not flip for index, flip in first.items()}


def test_flips_depend_on_their_seed_and_the_epoch_alone() -> None:
    first = flips(batches(150, 7, seed=0, flip_seed=5), 3)
    state = torch.get_rng_state()
    assert flips(batches(150, 9, seed=None, flip_seed=5), 3) == first
    assert flips(batches(150, 7, flip_seed=6), 3) != first
    assert torch.equal(torch.get_rng_state(), state)
    parts = [flips(batches(150, 7, rank=rank, ranks=9, flip_seed=5), 3) for rank in range(9)]  # two are always empty
    assert {index: flip for part in parts for index, flip in part.items()} == first
    assert [len(part) for part in parts][-2:] == [0, 0]


def test_flips_go_on_in_the_middle_of_an_epoch_and_leave_the_order_alone() -> None:
    whole, cut = batches(flip_seed=1), batches(flip_seed=1)
    cut.load_state_dict({"epoch": 3, "served": 4})
    rest = flips(cut, 3)
    assert list(flips(whole, 3).items())[-len(rest) :] == list(rest.items())
    assert len(rest) == 25 - 4 * 4
    assert [*flips(whole, 3)] == flat(epoch(batches(), 3))


def test_images_and_labels_of_different_number_are_refused() -> None:
    with pytest.raises(AssertionError):
        BatchLoader(torch.zeros(3, 1, 2, 2), torch.zeros(2), 1)
