"""augment=robust: each kind of distortion by value, and how many images get it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from fmnist.data import distort
from fmnist.data.augment import Augmentation


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 40, channels: int = 1, height: int = 28, width: int = 28) -> Tensor:
    return torch.rand(count, channels, height, width, generator=seeded(9)) * 255


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the functions draw these numbers, one after the other, for every image."""

    def fix(*values: float) -> None:
        drawn = iter(values)
        monkeypatch.setattr(distort, "_uniform", lambda images, *_: torch.full((len(images),), next(drawn)))

    return fix


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.2, 8), (0.26, 10), (1.0, 40)])
def test_each_kind_changes_its_fraction_of_the_images(
    fraction: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = images()
    for kind in distort.KINDS:
        monkeypatch.setattr(distort, "KINDS", (kind,))
        after = distort.distort(before, fraction, seeded())
        changed = (after - before).flatten(1).abs().amax(dim=1) > 1e-3
        assert changed.sum() == expected, kind.__name__
        assert torch.equal(after[~changed], before[~changed])


def test_kinds_are_drawn_apart_from_each_other_and_for_every_image() -> None:
    counts = torch.zeros(40)
    for seed in range(60):
        counts += (distort.distort(images(), 0.1, seeded(seed)) != images()).flatten(1).any(dim=1)
    # With six kinds for 4 of 40 images each, 1 - 0.9^6 = 47 % get one at least.
    assert counts.mean().item() / 60 == pytest.approx(0.47, abs=0.03)
    assert 12 <= counts.min() <= counts.max() <= 44


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 32)], ids=str)
def test_geometry_turns_and_resizes_as_torchvision(shape: tuple[int, int, int], fixed: Callable[..., None]) -> None:
    fixed(math.radians(20), math.log(1.25))
    before = images(2, *shape)
    after = distort.geometry(before, None)
    expected = functional.affine(
        before, angle=-20, translate=[0, 0], scale=1.25, shear=[0.0, 0.0], interpolation=InterpolationMode.BILINEAR
    )
    middle = (slice(None), slice(None), slice(6, -6), slice(6, -6))  # torchvision fills the edges in another way
    torch.testing.assert_close(after[middle], expected[middle], atol=0.05, rtol=0)


def test_blur_is_a_gaussian_and_keeps_the_mean(fixed: Callable[..., None]) -> None:
    fixed(1.5)
    point = torch.zeros(1, 1, 28, 28)
    point[..., 14, 14] = 200
    after = distort.blur(point, None)
    expected = functional.gaussian_blur(point, 21, 1.5)
    torch.testing.assert_close(after, expected, atol=1e-3, rtol=0)
    fixed(1.5)
    assert distort.blur(torch.full((1, 3, 28, 20), 70.0), None).sub(70).abs().max() < 1e-3


def test_brightness_contrast_and_inversion_by_value(fixed: Callable[..., None]) -> None:
    before = torch.tensor([0.0, 100.0, 200.0]).view(1, 1, 1, 3)
    fixed(math.log(0.5))
    assert distort.brightness(before, None).flatten().tolist() == pytest.approx([0, 50, 100], abs=1e-3)
    fixed(0.25)
    assert distort.contrast(before, None).flatten().tolist() == pytest.approx([75, 100, 125])
    fixed(0.3)
    assert distort.inversion(before, None).flatten().tolist() == pytest.approx([76.5, 116.5, 156.5])
    fixed(0.8)  # of 0 to 0.8: the share that leaves out 0.4 to 0.6
    assert distort.inversion(before, None).flatten().tolist() == pytest.approx([255, 155, 55])


def test_noise_has_its_standard_deviation(fixed: Callable[..., None]) -> None:
    fixed(20.0)
    difference = distort.noise(images(), seeded()) - images()
    assert difference.std().item() == pytest.approx(20, rel=0.03)
    assert difference.mean().item() == pytest.approx(0, abs=0.5)


def test_augmentation_distorts_bytes_reproducibly() -> None:
    before = images().to(torch.uint8)
    augment = Augmentation(distort=0.5)
    after = augment(before, seeded())
    assert (after.dtype, after.shape) == (torch.uint8, before.shape)
    assert torch.equal(after, augment(before, seeded()))
    assert not torch.equal(after, augment(before, seeded(1)))
    assert torch.equal(before, images().to(torch.uint8))
    exact = augment(before.float(), seeded())
    assert exact.dtype == torch.float32
    assert (exact.round() - after).abs().max() == 0
    assert torch.equal(Augmentation(distort=0.0)(before, seeded()), before)
    assert torch.equal(Augmentation(distort=0.5, until=0.5).in_epoch(5, 6)(before, seeded()), before)


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (3, 3, 8, 11), (5, 1, 1, 1)], ids=str)
def test_values_stay_in_range_for_any_shape(shape: tuple[int, int, int, int]) -> None:
    for seed in range(20):
        after = distort.distort(images(*shape), 1.0, seeded(seed))
        assert after.shape == shape
        assert after.isfinite().all()
        assert 0 <= after.min() <= after.max() <= 255
