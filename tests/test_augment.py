import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fmnist.data.augment import Augmentation, normalise
from fmnist.data.info import MEAN, STD

EVERYTHING = Augmentation(flip=0.5, shift=2, erase=0.5)


def random_images(count: int, channels: int = 1, height: int = 28, width: int = 28) -> Tensor:
    """Without black pixels, so that what the augmentation blackens is seen."""
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def matches(images: Tensor, candidates: Tensor) -> Tensor:
    """Which image equals which candidate: (N, M), bool."""
    return (images.flatten(1)[:, None] == candidates.flatten(1)[None]).all(dim=2)


def crops(image: Tensor, shift: int) -> Tensor:
    """All ((2 * shift + 1)², C, H, W) crops of the image padded by `shift`."""
    _, height, width = image.shape
    padded = functional.pad(image, [shift] * 4)
    side = range(2 * shift + 1)
    return torch.stack([padded[:, top : top + height, left : left + width] for top in side for left in side])


def test_normalise_by_hand() -> None:
    assert (MEAN, STD) == (0.2860, 0.3530)
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    normalised = normalise(pixels)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.flatten(), torch.tensor([-0.810198, -0.243626, 2.022663]))


def test_normalised_images_of_the_datasets_mean_and_deviation_have_0_and_1() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(normalise(levels), (levels / 255 - 0.2860) / 0.3530)
    scaled = normalise(levels) * 0.3530 + 0.2860
    assert [scaled.min().item(), scaled.max().item()] == pytest.approx([0.0, 1.0], abs=1e-6)


def test_certain_flip_is_a_left_right_flip() -> None:
    images = random_images(20, channels=3, height=6, width=9)
    assert torch.equal(Augmentation(flip=1.0)(images), images.flip(3))


def test_flip_turns_its_share_of_the_images_and_leaves_the_others() -> None:
    images = random_images(4000, height=4, width=4)
    flipped = Augmentation(flip=0.3)(images, torch.Generator().manual_seed(1))
    same, turned = (flipped == images).flatten(1).all(1), (flipped == images.flip(3)).flatten(1).all(1)
    assert (same | turned).all()
    assert turned.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_nothing_is_changed_by_default() -> None:
    images = random_images(5)
    assert torch.equal(Augmentation()(images), images)


@pytest.mark.parametrize("shift", [1, 2])
def test_shift_gives_each_crop_of_the_padded_image_equally_often(shift: int) -> None:
    image = random_images(1, height=6, width=5)[0]
    images = image.expand(5000, -1, -1, -1)
    found = matches(Augmentation(shift=shift)(images, torch.Generator().manual_seed(2)), crops(image, shift))
    assert (found.sum(dim=1) == 1).all()
    kinds = (2 * shift + 1) ** 2
    shares = found.sum(dim=0) / 5000 * kinds
    assert len(shares) == kinds
    assert shares.min() > 0.7
    assert shares.max() < 1.3


def test_flip_and_shift_give_every_crop_of_the_image_and_of_its_mirror_image() -> None:
    image = random_images(1, height=5, width=6)[0]
    images = image.expand(6000, -1, -1, -1)
    candidates = torch.cat([crops(image, 1), crops(image, 1).flip(3)])
    found = matches(Augmentation(flip=0.5, shift=1)(images, torch.Generator().manual_seed(3)), candidates)
    assert (found.sum(dim=1) == 1).all()
    shares = found.sum(dim=0) / 6000 * 18
    assert shares.min() > 0.7
    assert shares.max() < 1.3


def test_what_comes_in_from_outside_is_black() -> None:
    images = torch.full((200, 1, 4, 4), 255, dtype=torch.uint8)
    shifted = Augmentation(shift=2)(images, torch.Generator().manual_seed(4))
    assert shifted.unique().tolist() == [0, 255]
    assert min(shifted.flatten(1).count_nonzero(1)) == 4  # by two rows and two columns


def test_erase_blackens_a_rectangle_in_its_share_of_the_images() -> None:
    images = random_images(3000)
    erased = Augmentation(erase=0.3)(images, torch.Generator().manual_seed(5))
    black = erased[:, 0] == 0
    assert torch.equal(erased[:, 0][~black], images[:, 0][~black])
    changed = black.flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.03)
    black = black[changed]
    rows, columns = black.any(dim=2), black.any(dim=1)
    assert torch.equal(black, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # in one piece: it begins once
        assert ((lines[:, 1:] & ~lines[:, :-1]).sum(dim=1) + lines[:, 0] == 1).all()


def test_erased_area_and_aspect_ratio_are_those_of_the_paper() -> None:
    erased = Augmentation(erase=1.0)(random_images(4000, height=40, width=40), torch.Generator().manual_seed(6))
    black = erased[:, 0] == 0
    tall, wide = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    area = tall * wide / 1600
    assert 0.014 < area.min() < 0.03  # 2% before sides are rounded to pixels
    assert 0.30 < area.max() < 0.355
    assert area.mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.01)
    aspect = (tall / wide)[area > 0.1]
    assert 0.27 < aspect.min() < 0.35
    assert 2.9 < aspect.max() < 3.7
    assert aspect.log().mean().item() == pytest.approx(0.0, abs=0.05)


def test_erasing_reaches_every_pixel_and_often_the_middle() -> None:
    erased = Augmentation(erase=1.0)(random_images(4000), torch.Generator().manual_seed(7))
    share = (erased[:, 0] == 0).float().mean(dim=0)
    assert share.min() > 0
    assert 0.1 < share[14, 14] < 0.5
    torch.testing.assert_close(share, share.flip(0), atol=0.05, rtol=0)
    torch.testing.assert_close(share, share.flip(1), atol=0.05, rtol=0)


@pytest.mark.parametrize("augment", [Augmentation(flip=0.5), Augmentation(shift=2), Augmentation(erase=0.5)])
def test_each_image_is_changed_in_its_own_way(augment: Augmentation) -> None:
    torch.manual_seed(0)
    image = random_images(1)
    assert len(augment(image.expand(64, -1, -1, -1)).unique(dim=0)) > 1
    assert len({tuple(augment(image).flatten().tolist()) for _ in range(64)}) > 1


def test_channels_of_an_image_are_changed_alike() -> None:
    grey = random_images(50)
    changed = EVERYTHING(grey.expand(-1, 3, -1, -1), torch.Generator().manual_seed(8))
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert not torch.equal(changed[:, :1], grey)


def test_random_numbers_come_from_the_global_seed() -> None:
    images = random_images(64)
    torch.manual_seed(1)
    first, second = EVERYTHING(images), EVERYTHING(images)
    torch.manual_seed(1)
    assert torch.equal(EVERYTHING(images), first)
    assert not torch.equal(first, second)


def test_random_numbers_come_from_the_generator_where_one_is_given() -> None:
    images = random_images(64)
    state = torch.get_rng_state()
    first = EVERYTHING(images, torch.Generator().manual_seed(1))
    torch.rand(5)
    assert torch.equal(EVERYTHING(images, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(EVERYTHING(images, torch.Generator().manual_seed(2)), first)
    torch.set_rng_state(state)
    EVERYTHING(images, torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "shape", [(1, 1, 28, 28), (7, 3, 28, 28), (4, 1, 9, 14), (4, 2, 14, 9)], ids=lambda shape: "x".join(map(str, shape))
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "augment", [Augmentation(flip=1.0), Augmentation(shift=3), Augmentation(erase=1.0), EVERYTHING]
)
def test_shape_and_type_stay_and_the_input_is_not_written_to(
    augment: Augmentation, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    images = random_images(*shape).to(dtype)
    before = images.clone()
    changed = augment(images, torch.Generator().manual_seed(0))
    assert changed.shape == shape
    assert changed.dtype == dtype
    assert torch.equal(images, before)


def test_normalise_leaves_the_pixels_in_memory_alone() -> None:
    images = random_images(3)
    before = images.clone()
    normalise(images)
    assert torch.equal(images, before)


def test_one_augmentation_serves_images_of_several_sizes() -> None:
    augment = Augmentation(flip=1.0)
    for height, width in ((4, 6), (6, 4), (4, 6)):
        images = random_images(3, height=height, width=width)
        assert torch.equal(augment(images), images.flip(3))


def test_the_last_epochs_have_flips_alone() -> None:
    images, labels = random_images(50), torch.arange(50) % 10
    strong = Augmentation(flip=0.5, shift=2, erase=1.0, cutmix=1.0, until=0.7)
    assert [strong.in_epoch(epoch, 8) is strong for epoch in range(8)] == [True] * 6 + [False] * 2
    for epochs in (5, 9, None):
        assert Augmentation(shift=2).in_epoch(4, epochs).shift == 2
    assert strong.in_epoch(100, None) is strong
    late = strong.in_epoch(7, 8)
    turned = torch.arange(50) % 2 == 0
    assert torch.equal(late(images, None, turned)[turned], images[turned].flip(3))
    assert torch.equal(late(images, None, turned)[~turned], images[~turned])
    flips = (late(images) == images).flatten(1).all(1).float().mean().item()
    assert flips == pytest.approx(0.5, abs=0.25)
    assert late.mixed(images.float(), labels)[1] is labels
    assert Augmentation(flip=0.5, alternate=True, until=0.1).in_epoch(7, 8).alternate
