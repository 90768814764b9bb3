"""Mixup and CutMix, by value."""

import pytest
import torch
from kills import equal as same
from torch import Tensor

from fmnist.data.augment import Augmentation
from fmnist.data.info import FASHION_MNIST
from fmnist.data.mix import mix, outside_rectangles, sample_beta
from fmnist.models import MLP
from fmnist.training.classifier import Classifier
from fmnist.training.losses import CrossEntropy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, height: int = 28, width: int = 28) -> tuple[Tensor, Tensor]:
    """Return images of which number i has the value i everywhere, and the labels i % 10."""
    numbers = torch.arange(count)
    return numbers.float()[:, None, None, None].expand(-1, 1, height, width).clone(), numbers % 10


def test_image_and_soft_label_are_weighted_means() -> None:
    images, labels = torch.rand(3, 2, 4, 5, generator=seeded()), torch.tensor([7, 0, 7])
    kept = torch.tensor([0.25, 0.8, 1.0])
    mixed, soft = mix(images, labels, kept[:, None, None], 10)
    for i, other in enumerate((2, 0, 1)):
        torch.testing.assert_close(mixed[i], kept[i] * images[i] + (1 - kept[i]) * images[other])
    expected = torch.zeros(3, 10)
    expected[0, 7] = 1.0  # both labels are 7
    expected[1, 0], expected[1, 7] = 0.8, 0.2
    expected[2, 7] = 1.0
    torch.testing.assert_close(soft, expected)
    assert soft.dtype == torch.float32
    assert torch.equal(mixed[2], images[2])  # to the last bit


def test_mixup_draws_one_weight_of_its_distribution_for_each_image() -> None:
    images, labels = numbered(2000)
    mixed, soft = Augmentation(mixup=0.4).mixed(images, labels, 10, seeded())
    assert (mixed == mixed[:, :, :1, :1]).all()
    kept = mixed[1:, 0, 0, 0] - (images[1:, 0, 0, 0] - 1)  # image i is mixed with i - 1
    torch.testing.assert_close(soft[torch.arange(1, 2000), labels[1:]], kept, atol=3e-4, rtol=0)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(2000))
    assert kept.mean().item() == pytest.approx(0.5, abs=0.03)
    assert kept.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


def test_cutmix_takes_a_rectangle_of_the_other_image_and_weights_the_label_by_its_pixels() -> None:
    images, labels = numbered(500)
    mixed, soft = Augmentation(cutmix=1.0).mixed(images, labels, 10, seeded())
    other = mixed[:, 0] == images.roll(1, 0)[:, 0]
    assert torch.equal(mixed[:, 0][~other], images[:, 0][~other])
    rows, columns = other.any(dim=2), other.any(dim=1)
    assert torch.equal(other, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # contiguous: each starts at most once
        assert ((lines[:, 1:] & ~lines[:, :-1]).sum(dim=1) + lines[:, 0] <= 1).all()
    kept = 1 - other.float().mean(dim=(1, 2))
    torch.testing.assert_close(soft[torch.arange(500), labels], kept, atol=1e-6, rtol=0)
    torch.testing.assert_close(soft[torch.arange(500), labels.roll(1)], 1 - kept, atol=1e-6, rtol=0)
    assert kept.mean().item() > 0.5  # rectangles end at the edges


def test_rectangles_have_the_size_and_aspect_ratio_asked_for() -> None:
    cut = outside_rectangles(torch.full((4000,), 0.75), 40, 20, seeded()) == 0
    rows, columns = cut.any(dim=2), cut.any(dim=1)
    within = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    assert within.sum() > 500
    assert (rows.sum(dim=1)[within] - 20).abs().max() <= 1  # edges are rounded to pixels
    assert (columns.sum(dim=1)[within] - 10).abs().max() <= 1
    assert cut.float().mean(dim=0).min() > 0.05  # everywhere
    for fraction, pixels in ((1.0, 0), (0.0, 800)):
        cut = outside_rectangles(torch.full((500,), fraction), 40, 20, seeded()) == 0
        assert cut.sum(dim=(1, 2)).max() == pytest.approx(pixels, abs=100)


@pytest.mark.parametrize("alpha", [1e-30, 1e-3, 0.2, 1.0, 100.0])
def test_samples_are_of_the_beta_distribution(alpha: float) -> None:
    drawn = sample_beta(alpha, 20_000, torch.device("cpu"), seeded()).double()
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    middle = torch.distributions.Beta(alpha, alpha).log_prob(torch.tensor(0.5)).exp().item() if alpha > 0.1 else 0.0
    assert ((drawn - 0.5).abs() < 0.02).double().mean().item() == pytest.approx(0.04 * middle, rel=0.15, abs=0.005)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_are_mixed_with_the_probability_mix(kind: str) -> None:
    images, labels = numbered(4000)
    mixed, soft = Augmentation(**{kind: 1.0}, mix=0.3).mixed(images, labels, 10, seeded())
    unmixed = soft[torch.arange(4000), labels] == 1
    assert torch.equal(mixed[unmixed], images[unmixed])
    assert unmixed.float().mean().item() == pytest.approx(0.7, abs=0.06)  # a small rectangle may hold no pixel


def test_with_both_each_batch_takes_one_of_them_at_random() -> None:
    augment, generator = Augmentation(mixup=1.0, cutmix=1.0), seeded()
    images, labels = numbered(32)
    used_mixup = 0
    for _ in range(200):
        mixed, soft = augment.mixed(images, labels, 10, generator)
        own = soft[torch.arange(32), labels]
        torch.testing.assert_close((mixed - images.roll(1, 0))[1:].mean(dim=(1, 2, 3)), own[1:], atol=1e-4, rtol=0)
        fractional = bool((mixed % 1 != 0).any())
        assert not fractional or (mixed == mixed[:, :, :1, :1]).all()
        used_mixup += fractional
    assert used_mixup == pytest.approx(100, abs=25)


@pytest.mark.parametrize("augment", [Augmentation(0.5, 2, 0.5), Augmentation(mixup=1.0, cutmix=1.0, mix=0.0)])
def test_without_mixing_images_labels_and_random_numbers_are_unchanged(augment: Augmentation) -> None:
    images, labels = numbered(5)
    state = torch.get_rng_state()
    mixed, same_labels = augment.mixed(images, labels, 10)
    assert mixed is images
    assert same_labels is labels
    assert torch.equal(torch.get_rng_state(), state)


def test_random_numbers_of_mixing_come_from_the_global_seed_or_the_generator() -> None:
    augment, (images, labels) = Augmentation(mixup=1, cutmix=1), numbered(16)
    torch.manual_seed(1)
    first, second = augment.mixed(images, labels, 10), augment.mixed(images, labels, 10)
    torch.manual_seed(1)
    assert same(augment.mixed(images, labels, 10), first)
    assert not torch.equal(first[1], second[1])
    state = torch.get_rng_state()
    assert same(augment.mixed(images, labels, 10, seeded(3)), augment.mixed(images, labels, 10, seeded(3)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, numbered(16)[0])


@pytest.mark.parametrize("augment", [Augmentation(0.5, 2, 0.5, mixup=0.3), Augmentation(0.5, cutmix=1.0, mixup=0.3)])
@pytest.mark.parametrize("count", [0, 1])
def test_a_part_of_a_batch_may_have_no_or_one_image(augment: Augmentation, count: int) -> None:
    images, labels = numbered(count)
    changed = FASHION_MNIST.normalise(augment(images.to(torch.uint8)))
    mixed, soft = augment.mixed(changed, labels, 10)
    torch.testing.assert_close(mixed, changed)
    torch.testing.assert_close(soft, torch.nn.functional.one_hot(labels, 10).float())
    model = Classifier(MLP((1, 28, 28), 10, []), CrossEntropy(0.1), torch.optim.SGD, lambda *_: 1.0, classes=range(10))
    loss, _ = model.shared_step((mixed, soft), "train")
    loss.backward()
    assert bool(loss.isfinite()) == bool(count)  # the mean over nothing is NaN, and counts nothing
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    assert model.metrics("train").confusion.sum() == count
