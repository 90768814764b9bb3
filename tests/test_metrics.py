"""Loss, accuracy, confusion matrix and calibration, by value."""

import pytest
import torch
from torch import Tensor

from fmnist.training.metric_names import direction, metric_names
from fmnist.training.metrics import ClassificationMetrics, calibration


def logits_for(predicted: list[int], classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def three_classes() -> ClassificationMetrics:
    """Return the metrics of two batches: labels 0 0 0 1, predicted 0 0 1 1, loss 1; label 1, predicted 0, loss 3."""
    metrics = ClassificationMetrics(3)
    metrics.update(torch.tensor(1.0), logits_for([0, 0, 1, 1], 3), torch.tensor([0, 0, 0, 1]))
    metrics.update(torch.tensor(3.0), logits_for([0], 3), torch.tensor([1]))
    return metrics


def test_all_metrics_by_value() -> None:
    found = three_classes().compute()
    assert found["confusion"].tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]  # rows are true classes
    assert found["confusion"].dtype == torch.int64
    assert found["accuracy"].item() == pytest.approx(3 / 5)  # of all images, whatever the batches
    assert found["loss"].item() == pytest.approx((4 * 1.0 + 1 * 3.0) / 5)
    assert found["accuracy_per_class"].tolist() == pytest.approx([2 / 3, 1 / 2, torch.nan], nan_ok=True)


def test_a_loss_of_nan_gives_nan() -> None:
    metrics = three_classes()
    metrics.update(torch.tensor(float("nan")), logits_for([0], 3), torch.tensor([0]))
    assert metrics.compute()["loss"].isnan()


def test_one_image_of_300_000_changes_the_accuracy() -> None:
    metrics = ClassificationMetrics(2)
    labels = torch.zeros(100_000, dtype=torch.long)
    for wrong in (1, 0, 0):
        predicted = torch.zeros(100_000, dtype=torch.long)
        predicted[:wrong] = 1
        metrics.update(torch.tensor(0.1), torch.nn.functional.one_hot(predicted, 2).float(), labels)
    assert metrics.compute()["accuracy"].item() == pytest.approx(299_999 / 300_000, abs=1e-9)


def test_the_largest_soft_label_counts() -> None:
    labels = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.3, 0.7], [0.0, 1.0, 0.0], [0.2, 0.8, 0.0]])
    metrics = ClassificationMetrics(3)
    metrics.update(torch.tensor(0.5), logits_for([0, 1, 1, 0], 3), labels)
    assert metrics.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert metrics.loss_sum == 2.0


def test_an_empty_batch_adds_nothing() -> None:
    metrics = ClassificationMetrics(3)
    metrics.update(torch.tensor(0.0), torch.empty(0, 3), torch.empty(0, 3))
    assert metrics.confusion.sum() == metrics.loss_sum == 0


def test_an_epoch_resumes_from_the_state() -> None:
    first, second = ClassificationMetrics(3), ClassificationMetrics(3)
    first.update(torch.tensor(1.0), logits_for([0, 0, 1, 1], 3), torch.tensor([0, 0, 0, 1]))
    second.load_state_dict(first.state_dict())
    second.update(torch.tensor(3.0), logits_for([0], 3), torch.tensor([1]))
    whole, parts = three_classes().compute(), second.compute()
    assert all(torch.equal(whole[name].nan_to_num(), parts[name].nan_to_num()) for name in whole)


def test_names_and_directions_of_the_metrics() -> None:
    names = metric_names("val", ["Bag", "T-shirt/top"])
    assert names == ["val/loss", "val/accuracy", "val/accuracy_per_class/Bag", "val/accuracy_per_class/T-shirt/top"]
    assert [direction(name) for name in names] == ["min", "max", "max", "max"]


def test_calibration_of_each_bin_by_value() -> None:
    # Four images of confidence 0.75, two of them right, are in the fourth bin; six of 0.95, all right, in the last.
    confidence = torch.tensor([0.75] * 4 + [0.95] * 6)
    probabilities = torch.stack([confidence, 1 - confidence], dim=1)
    labels = torch.tensor([0, 0, 1, 1, *[0] * 6])
    found = calibration(probabilities, labels, bins=5)
    assert found.count.tolist() == [0, 0, 0, 4, 6]
    assert found.confidence[3:].tolist() == pytest.approx([0.75, 0.95])
    assert found.accuracy[3:].tolist() == pytest.approx([0.5, 1.0])
    assert found.confidence[:3].isnan().all()
    assert found.error == pytest.approx(0.4 * 0.25 + 0.6 * 0.05)


def test_a_confidence_of_1_is_in_the_last_bin() -> None:
    found = calibration(torch.eye(3), torch.tensor([0, 1, 0]), bins=4)
    assert found.count.tolist() == [0, 0, 0, 3]
    assert found.error == pytest.approx(1 / 3)


def test_top5_accuracy_from_20_classes_on() -> None:
    metrics = ClassificationMetrics(20)
    logits = torch.arange(20.0).repeat(4, 1)  # the most likely classes are 19, 18, 17, 16, 15
    metrics.update(torch.tensor(1.0), logits, torch.tensor([19, 15, 14, 0]))
    metrics.update(torch.tensor(1.0), logits[:1], torch.nn.functional.one_hot(torch.tensor([17]), 20).float())
    assert metrics.compute()["accuracy_top5"].item() == pytest.approx(3 / 5)
    assert metrics.compute()["accuracy"].item() == pytest.approx(1 / 5)
    assert not ClassificationMetrics(19).has_top5
