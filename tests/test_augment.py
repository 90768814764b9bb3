"""Flips, shifts and random erasing, checked pixel by pixel."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fmnist.data.augment import Augmentation

EVERYTHING = Augmentation(flip=0.5, shift=2, erase=0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, channels: int = 1, height: int = 28, width: int = 28) -> Tensor:
    """Return images without black pixels, so that pixels blackened by the augmentation can be told."""
    return torch.randint(1, 256, (count, channels, height, width), generator=seeded()).to(torch.uint8)


def crops(image: Tensor, shift: int) -> Tensor:
    """Return all crops ((2 * shift + 1)², C, H, W) of the image padded by `shift`."""
    _, height, width = image.shape
    padded = functional.pad(image, [shift] * 4)
    offsets = range(2 * shift + 1)
    return torch.stack([padded[:, top : top + height, left : left + width] for top in offsets for left in offsets])


@pytest.mark.parametrize(("flip", "tolerance"), [(0.0, 0.0), (0.3, 0.03), (1.0, 0.0)])
def test_flip_mirrors_images_with_its_probability(flip: float, tolerance: float) -> None:
    images = random_images(4000, channels=2, height=4, width=5)
    flipped = Augmentation(flip=flip)(images, seeded(1))
    same, mirrored = (flipped == images).flatten(1).all(1), (flipped == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(flip, abs=tolerance)


@pytest.mark.parametrize(("flip", "shift"), [(0.0, 1), (0.0, 2), (0.5, 1)])
def test_each_crop_of_the_padded_image_is_equally_likely(flip: float, shift: int) -> None:
    image = random_images(1, height=6, width=5)[0]
    candidates = crops(image, shift)  # padded by black pixels
    if flip:
        candidates = torch.cat([candidates, candidates.flip(3)])
    changed = Augmentation(flip=flip, shift=shift)(image.expand(6000, -1, -1, -1), seeded(2))
    found = (changed.flatten(1)[:, None] == candidates.flatten(1)[None]).all(dim=2)
    assert (found.sum(dim=1) == 1).all()
    frequencies = found.sum(dim=0) / 6000 * len(candidates)
    assert 0.7 < frequencies.min() <= frequencies.max() < 1.3


def erased_pixels(erase: float, count: int, side: int) -> Tensor:
    """Return which pixels (N, H, W) are erased; the others are unchanged."""
    images = random_images(count, height=side, width=side)
    changed = Augmentation(erase=erase)(images, seeded(5))
    black = changed == 0
    assert torch.equal(changed[~black], images[~black])
    return black[:, 0]


def test_erase_blackens_a_rectangle_with_its_probability() -> None:
    black = erased_pixels(0.3, 3000, 28)
    chosen = black.flatten(1).any(1)
    assert chosen.float().mean().item() == pytest.approx(0.3, abs=0.03)
    rows, columns = black[chosen].any(dim=2), black[chosen].any(dim=1)
    assert torch.equal(black[chosen], rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # contiguous: each starts once
        assert ((lines[:, 1:] & ~lines[:, :-1]).sum(dim=1) + lines[:, 0] == 1).all()


def test_erased_rectangles_have_the_area_aspect_ratio_and_positions_of_the_paper() -> None:
    black = erased_pixels(1.0, 4000, 40)
    tall, wide = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    area = tall * wide / 1600
    assert 0.014 < area.min() < 0.03  # 2% before the sides are rounded to pixels
    assert 0.30 < area.max() < 0.355
    assert area.mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.01)
    aspect = (tall / wide)[area > 0.1]
    assert 0.27 < aspect.min() < 0.35
    assert 2.9 < aspect.max() < 3.7
    assert aspect.log().mean().item() == pytest.approx(0.0, abs=0.05)
    frequency = black.float().mean(dim=0)
    assert frequency.min() > 0
    assert 0.1 < frequency[20, 20] < 0.5
    for axis in (0, 1):
        torch.testing.assert_close(frequency, frequency.flip(axis), atol=0.05, rtol=0)


def test_all_channels_of_an_image_are_changed_alike() -> None:
    grey = random_images(50)
    changed = EVERYTHING(grey.expand(-1, 3, -1, -1), seeded(8))
    assert torch.equal(changed, changed[:, :1].expand(-1, 3, -1, -1))
    assert not torch.equal(changed[:, :1], grey)


def test_random_numbers_come_from_the_global_seed_or_the_generator() -> None:
    images = random_images(64)
    torch.manual_seed(1)
    first, second = EVERYTHING(images), EVERYTHING(images)
    torch.manual_seed(1)
    assert torch.equal(EVERYTHING(images), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    assert torch.equal(EVERYTHING(images, seeded(1)), EVERYTHING(images, seeded(1)))
    assert not torch.equal(EVERYTHING(images, seeded(1)), EVERYTHING(images, seeded(2)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (7, 3, 28, 28), (4, 2, 14, 9)], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shape_and_dtype_stay_and_the_input_is_not_written_to(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    images = random_images(*shape).to(dtype)
    before = images.clone()
    changed = EVERYTHING(images, seeded())
    assert (changed.shape, changed.dtype) == (shape, dtype)
    assert torch.equal(images, before)


def test_the_last_epochs_only_flip() -> None:
    images, labels = random_images(50), torch.arange(50) % 10
    strong = Augmentation(flip=0.5, shift=2, erase=1.0, cutmix=1.0, until=0.7)
    assert [strong.in_epoch(epoch, 8) is strong for epoch in range(8)] == [True] * 6 + [False] * 2
    assert strong.in_epoch(100, None) is strong
    assert all(Augmentation(shift=2).in_epoch(4, epochs).shift == 2 for epochs in (5, 9, None))
    late = strong.in_epoch(7, 8)
    flipped = torch.arange(50) % 2 == 0
    expected = torch.where(flipped[:, None, None, None], images.flip(3), images)
    assert torch.equal(late(images, None, flipped), expected)
    assert 10 < (late(images) == images).flatten(1).all(1).sum() < 40
    assert late.mixed(images.float(), labels, 10)[1] is labels
    assert Augmentation(flip=0.5, alternate=True, until=0.1).in_epoch(7, 8).alternate


def test_alternating_flips_need_a_probability_of_one_half() -> None:
    Augmentation(flip=0.5, alternate=True)
    for flip in (0.0, 0.3, 1.0):
        with pytest.raises(ValueError, match=f"^flip={flip}: must be 0.5 with alternate=true"):
            Augmentation(flip=flip, alternate=True)
