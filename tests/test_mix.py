"""Mixup, cutmix and alternating flips: by value, and in trainings."""

import json
from pathlib import Path

import pytest
import torch
from conftest import RunScript, press_ctrl_c
from kills import same
from torch import Tensor

from fmnist.data.augment import Augmentation, normalise
from fmnist.data.info import CLASSES
from fmnist.data.mix import beta, mix, outside_rectangles
from fmnist.models import MLP
from fmnist.runs import checkpoints
from fmnist.training.classifier import Classifier
from fmnist.training.losses import CrossEntropy

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, height: int = 28, width: int = 28) -> tuple[Tensor, Tensor]:
    """Image i holds the value i everywhere, and has the label i % 10."""
    numbers = torch.arange(count)
    return numbers.float()[:, None, None, None].expand(-1, 1, height, width).clone(), numbers % 10


def test_a_mixed_image_and_its_label_have_as_much_of_each_as_asked() -> None:
    images, labels = torch.rand(3, 2, 4, 5, generator=seeded()), torch.tensor([7, 0, 7])
    kept = torch.tensor([0.25, 0.8, 1.0])
    mixed, shares = mix(images, labels, kept[:, None, None])
    for i, other in enumerate((2, 0, 1)):
        torch.testing.assert_close(mixed[i], kept[i] * images[i] + (1 - kept[i]) * images[other])
    expected = torch.zeros(3, len(CLASSES))
    expected[0, 7] = 1.0  # both are 7
    expected[1, 0], expected[1, 7] = 0.8, 0.2
    expected[2, 7] = 1.0
    torch.testing.assert_close(shares, expected)
    assert shares.dtype == torch.float32
    assert torch.equal(mixed[2], images[2])  # to the last bit


def test_mixup_keeps_shares_of_its_distribution_and_mixes_labels_likewise() -> None:
    images, labels = numbered(2000)
    mixed, shares = Augmentation(mixup=0.4).mixed(images, labels, seeded())
    assert (mixed == mixed[:, :, :1, :1]).all()
    kept = mixed[1:, 0, 0, 0] - (images[1:, 0, 0, 0] - 1)  # image i is mixed with i - 1
    torch.testing.assert_close(shares[torch.arange(1, 2000), labels[1:]], kept, atol=3e-4, rtol=0)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2000))
    assert kept.mean().item() == pytest.approx(0.5, abs=0.03)
    assert kept.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


def test_cutmix_takes_a_rectangle_of_the_other_image_and_the_label_has_its_share_of_the_pixels() -> None:
    images, labels = numbered(500)
    mixed, shares = Augmentation(cutmix=1.0).mixed(images, labels, seeded())
    other = mixed[:, 0] == images.roll(1, 0)[:, 0]
    assert torch.equal(mixed[:, 0][~other], images[:, 0][~other])
    rows, columns = other.any(dim=2), other.any(dim=1)
    assert torch.equal(other, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # in one piece: it begins at most once
        assert ((lines[:, 1:] & ~lines[:, :-1]).sum(dim=1) + lines[:, 0] <= 1).all()
    stayed = 1 - other.float().mean(dim=(1, 2))
    torch.testing.assert_close(shares[torch.arange(500), labels], stayed, atol=1e-6, rtol=0)
    torch.testing.assert_close(shares[torch.arange(500), labels.roll(1)], 1 - stayed, atol=1e-6, rtol=0)
    assert stayed.mean().item() > 0.5  # what reaches beyond the edge is lost


def test_rectangles_are_of_the_size_and_shape_asked_for_where_they_lie_within() -> None:
    cut = outside_rectangles(torch.full((4000,), 0.75), 40, 20, seeded()) == 0
    rows, columns = cut.any(dim=2), cut.any(dim=1)
    within = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    assert within.sum() > 500
    assert (rows.sum(dim=1)[within] - 20).abs().max() <= 1  # ends are rounded to pixels
    assert (columns.sum(dim=1)[within] - 10).abs().max() <= 1
    assert cut.float().mean(dim=0).min() > 0.05  # everywhere
    for stays, pixels in ((1.0, 0), (0.0, 800)):
        cut = outside_rectangles(torch.full((500,), stays), 40, 20, seeded()) == 0
        assert cut.sum(dim=(1, 2)).max() == pytest.approx(pixels, abs=100)


@pytest.mark.parametrize("alpha", [1e-30, 1e-3, 0.2, 1.0, 8.0, 100.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    drawn = beta(alpha, 20_000, CPU, seeded()).double()
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    middle = torch.distributions.Beta(alpha, alpha).log_prob(torch.tensor(0.5)).exp().item() if alpha > 0.1 else 0.0
    assert ((drawn - 0.5).abs() < 0.02).double().mean().item() == pytest.approx(0.04 * middle, rel=0.15, abs=0.005)


@pytest.mark.parametrize("augment", [Augmentation(mixup=1.0, mix=0.3), Augmentation(cutmix=1.0, mix=0.3)])
def test_only_a_share_of_the_images_is_mixed(augment: Augmentation) -> None:
    images, labels = numbered(4000)
    mixed, shares = augment.mixed(images, labels, seeded())
    stays = shares[torch.arange(4000), labels] == 1
    assert torch.equal(mixed[stays], images[stays])
    assert stays.float().mean().item() == pytest.approx(0.7, abs=0.06)  # a small rectangle may hold no pixel


def test_with_both_each_batch_takes_one_of_them_at_random() -> None:
    augment, generator = Augmentation(mixup=1.0, cutmix=1.0), seeded()
    images, labels = numbered(32)
    faded = [bool((augment.mixed(images, labels, generator)[0] % 1 != 0).any()) for _ in range(200)]
    assert sum(faded) == pytest.approx(100, abs=25)
    for _ in range(20):
        mixed, shares = augment.mixed(images, labels, generator)
        own = shares[torch.arange(32), labels]
        assert (mixed == mixed[:, :, :1, :1]).all() or torch.equal(mixed, mixed.round())
        torch.testing.assert_close((mixed - images.roll(1, 0))[1:].mean(dim=(1, 2, 3)), own[1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("augment", [Augmentation(0.5, 2, 0.5), Augmentation(mixup=1.0, cutmix=1.0, mix=0.0)])
def test_without_mixing_images_labels_and_random_numbers_are_left_alone(augment: Augmentation) -> None:
    images, labels = numbered(5)
    state = torch.get_rng_state()
    mixed, same_labels = augment.mixed(images, labels)
    assert mixed is images
    assert same_labels is labels
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "augment", [Augmentation(mixup=0.3), Augmentation(cutmix=1.0), Augmentation(mixup=1, cutmix=1)]
)
def test_random_numbers_of_mixing_come_from_the_seed_or_the_generator(augment: Augmentation) -> None:
    images, labels = numbered(16)
    torch.manual_seed(1)
    first, second = augment.mixed(images, labels), augment.mixed(images, labels)
    torch.manual_seed(1)
    assert same(augment.mixed(images, labels), first)
    assert not torch.equal(first[1], second[1])
    state = torch.get_rng_state()
    assert same(augment.mixed(images, labels, seeded(3)), augment.mixed(images, labels, seeded(3)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, numbered(16)[0])


def test_mixing_what_is_normalised_is_normalising_what_is_mixed() -> None:
    pixels = torch.randint(256, (64, 1, 28, 28), generator=seeded()).to(torch.uint8)
    labels = torch.arange(64) % 10
    for augment in (Augmentation(mixup=1.0), Augmentation(cutmix=1.0)):
        after, _ = augment.mixed(normalise(pixels), labels, seeded())
        before, _ = augment.mixed(pixels.float(), labels, seeded())
        torch.testing.assert_close(after, normalise(before), atol=1e-5, rtol=0)


@pytest.mark.parametrize("augment", [Augmentation(0.5, 2, 0.5, mixup=0.3), Augmentation(0.5, cutmix=1.0, mixup=0.3)])
@pytest.mark.parametrize("count", [0, 1])
def test_a_part_of_a_batch_may_be_empty_or_one_image(augment: Augmentation, count: int) -> None:
    images, labels = numbered(count)
    changed = normalise(augment(images.to(torch.uint8)))
    mixed, shares = augment.mixed(changed, labels)
    torch.testing.assert_close(mixed, changed)
    assert shares.shape == (count, len(CLASSES))
    torch.testing.assert_close(shares, torch.nn.functional.one_hot(labels, len(CLASSES)).float())
    model = Classifier(MLP((1, 28, 28), 10, []), CrossEntropy(0.1), torch.optim.SGD, lambda *_: 1.0)
    loss, _ = model.shared_step((mixed, shares), "train")
    loss.backward()
    assert loss.isfinite()
    assert model.metrics("train").confusion.sum() == count


def test_flips_in_turns_need_half_of_the_images() -> None:
    Augmentation(flip=0.5, alternate=True)
    for flip in (0.0, 0.3, 1.0):
        with pytest.raises(ValueError, match=f"^alternate=true .* needs flip=0.5, not flip={flip}$"):
            Augmentation(flip=flip, alternate=True)


def last_state(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = checkpoints.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    return state


@pytest.mark.parametrize("words", [["augment=mixup"], ["augment=cutmix", "loss=mean_squared_error"]])
def test_a_training_on_mixed_images_learns(words: list[str], train: RunScript) -> None:
    done = train(*words, "optimizer.lr=0.01", "test=false")
    assert done.status == 0, done.err
    metrics = json.loads((done.run / "metrics.json").read_text())
    assert metrics["val/accuracy"] > 0.3
    assert last_state(done.run)["_metrics.train_metrics.confusion"].sum() == 500  # of the last epoch


def test_mixing_and_flips_in_turns_go_on_as_if_nothing_had_been(
    train: RunScript, run_script: RunScript, at_batch
) -> None:
    words = ["augment.alternate=true", "augment.erase=0.3", "augment.mixup=0.2", "augment.cutmix=1", "test=false"]
    words.append("augment.until=0.6")  # the last epoch has labels instead of shares of the classes
    undo = at_batch(13, press_ctrl_c)
    cut = train(*words, "name=cut")
    assert cut.status == 130, cut.err
    run = cut.run
    undo.undo()
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert "from step 13" in resumed.out
    whole = train(*words, "name=whole")
    (other,) = whole.folder.glob("outputs/whole/*")
    assert same(last_state(run), last_state(other))
