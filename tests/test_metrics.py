import pytest
import torch
from torch import Tensor

from fmnist.data.info import CLASSES
from fmnist.training.metric_names import direction, metric_names
from fmnist.training.metrics import ClassificationMetrics, calibration


def logits_for(predicted: list[int], classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def three_classes() -> ClassificationMetrics:
    """Two batches: labels 0 0 0 1, predicted 0 0 1 1, loss 1; then label 1, predicted 0, loss 3."""
    metrics = ClassificationMetrics(3)
    metrics.update(torch.tensor(1.0), logits_for([0, 0, 1, 1], 3), torch.tensor([0, 0, 0, 1]))
    metrics.update(torch.tensor(3.0), logits_for([0], 3), torch.tensor([1]))
    return metrics


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns() -> None:
    confusion = three_classes().compute()["confusion"]
    assert confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion.dtype == torch.int64


def test_accuracy_is_of_images_not_of_batches() -> None:
    assert three_classes().compute()["accuracy"].item() == pytest.approx(3 / 5)


def test_accuracy_per_class_is_nan_for_a_class_without_images() -> None:
    per_class = three_classes().compute()["accuracy_per_class"]
    assert per_class[:2].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert per_class[2].isnan()


def test_class_that_is_predicted_but_never_true_has_no_accuracy_either() -> None:
    metrics = ClassificationMetrics(2)
    metrics.update(torch.tensor(0.5), logits_for([1, 1], 2), torch.tensor([0, 0]))
    assert metrics.compute()["accuracy_per_class"].nan_to_num(nan=-1).tolist() == [0.0, -1.0]


def test_loss_is_weighted_by_the_size_of_the_batches() -> None:
    assert three_classes().compute()["loss"].item() == pytest.approx((4 * 1.0 + 1 * 3.0) / 5)


def test_loss_that_is_not_a_number_is_shown_as_such() -> None:
    metrics = three_classes()
    metrics.update(torch.tensor(float("nan")), logits_for([0], 3), torch.tensor([0]))
    assert metrics.compute()["loss"].isnan()


def test_one_image_more_or_less_shows_in_many() -> None:
    metrics = ClassificationMetrics(2)
    labels = torch.zeros(100_000, dtype=torch.long)
    for wrong in (1, 0, 0):
        predicted = torch.zeros(100_000, dtype=torch.long)
        predicted[:wrong] = 1
        metrics.update(torch.tensor(0.1), torch.nn.functional.one_hot(predicted, 2).float(), labels)
    assert metrics.compute()["accuracy"].item() == pytest.approx(299_999 / 300_000, abs=1e-9)


def test_of_a_mixed_image_the_largest_share_counts() -> None:
    labels = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.3, 0.7], [0.0, 1.0, 0.0], [0.2, 0.8, 0.0]])
    shares, whole = ClassificationMetrics(3), ClassificationMetrics(3)
    shares.update(torch.tensor(0.5), logits_for([0, 1, 1, 0], 3), labels)
    whole.update(torch.tensor(0.5), logits_for([0, 1, 1, 0], 3), torch.tensor([0, 2, 1, 1]))
    assert shares.compute()["confusion"].tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert torch.equal(shares.loss_sum, whole.loss_sum)
    assert torch.equal(shares.confusion, whole.confusion)


def test_a_part_without_mixed_images_adds_nothing() -> None:
    metrics = ClassificationMetrics(3)
    metrics.update(torch.tensor(0.0), torch.empty(0, 3), torch.empty(0, 3))
    assert metrics.confusion.sum() == metrics.loss_sum == 0


def test_reset_forgets_everything() -> None:
    metrics = three_classes()
    metrics.reset()
    metrics.update(torch.tensor(2.0), logits_for([2], 3), torch.tensor([2]))
    result = metrics.compute()
    assert result["loss"].item() == 2.0
    assert result["accuracy"].item() == 1.0
    assert result["confusion"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_state_holds_the_batches_so_that_an_epoch_can_go_on() -> None:
    first, second = ClassificationMetrics(3), ClassificationMetrics(3)
    first.update(torch.tensor(1.0), logits_for([0, 0, 1, 1], 3), torch.tensor([0, 0, 0, 1]))
    second.load_state_dict(first.state_dict())
    second.update(torch.tensor(3.0), logits_for([0], 3), torch.tensor([1]))
    whole, parts = three_classes().compute(), second.compute()
    assert all(torch.equal(whole[name].nan_to_num(), parts[name].nan_to_num()) for name in whole)


@pytest.mark.parametrize(
    ("metric", "better"),
    [("val/loss", "min"), ("train/loss", "min"), ("val/accuracy", "max"), ("val/accuracy_per_class/Bag", "max")],
)
def test_direction_says_which_way_is_better(metric: str, better: str) -> None:
    assert direction(metric) == better


def test_metric_names_are_those_of_the_phase_and_every_class() -> None:
    names = metric_names("val")
    assert names[:3] == ["val/loss", "val/accuracy", "val/accuracy_per_class/T-shirt/top"]
    assert names[-1] == "val/accuracy_per_class/Ankle boot"
    assert len(names) == 2 + len(CLASSES) == 12


def test_calibration_compares_confidence_and_accuracy_bin_by_bin() -> None:
    # Four images with 0.75, two of them right; six with 0.95, all right. Five bins: the fourth and the last.
    confidence = torch.tensor([0.75] * 4 + [0.95] * 6)
    probabilities = torch.stack([confidence, 1 - confidence], dim=1)
    labels = torch.tensor([0, 0, 1, 1, *[0] * 6])
    found = calibration(probabilities, labels, bins=5)
    assert found.count.tolist() == [0, 0, 0, 4, 6]
    assert found.confidence[3:].tolist() == pytest.approx([0.75, 0.95])
    assert found.accuracy[3:].tolist() == pytest.approx([0.5, 1.0])
    assert found.confidence[:3].isnan().all()
    assert found.error == pytest.approx(0.4 * 0.25 + 0.6 * 0.05)


def test_calibration_error_is_that_of_its_bins() -> None:
    torch.manual_seed(0)
    probabilities, labels = torch.randn(500, 10).softmax(dim=1), torch.randint(10, (500,))
    found = calibration(probabilities, labels)
    gaps = (found.confidence - found.accuracy).abs() * found.count / 500
    assert found.count.sum() == 500
    assert found.error == pytest.approx(gaps.nansum().item(), abs=1e-6)


def test_calibration_of_certainty_lies_in_the_last_bin() -> None:
    found = calibration(torch.eye(3), torch.tensor([0, 1, 0]), bins=4)
    assert found.count.tolist() == [0, 0, 0, 3]
    assert found.error == pytest.approx(1 / 3)
