"""What a run shows in TensorBoard, read back from its files."""

import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.pr_curve import plugin_data_pb2 as pr_curve_data
from tensorboard.util.tensor_util import make_ndarray

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.data.info import CLASSES
from fmnist.runs import checkpoints
from fmnist.training.callbacks import pictures
from fmnist.training.callbacks.pictures import Pictures
from fmnist.training.callbacks.projector import sprite
from fmnist.training.metric_names import metric_names
from fmnist.training.metrics import ClassificationMetrics
from fmnist.training.tensorboard import charts

PICTURES = ("pictures=default", "pictures.every_n_epochs=2")


def board(run: Path) -> EventAccumulator:
    shown = EventAccumulator(str(run), size_guidance={"images": 0, "tensors": 0, "histograms": 0})
    shown.Reload()
    return shown


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoints.network_weights(checkpoints.load(run / "checkpoints" / "last.ckpt"))


def test_pictures_are_drawn_every_n_epochs_and_after_the_last(train: RunScript) -> None:
    done = train(*PICTURES, "trainer.max_epochs=3", "model.channels=[4,8]")
    assert done.status == 0, done.err
    shown = board(done.run)
    names = ["activations/1", "activations/2", "confusion", "filters", "predictions"]
    assert sorted(shown.Tags()["images"]) == names
    for name in names:
        assert [picture.step for picture in shown.Images(name)] == [19, 29]
        assert shown.Images(name)[0].width > 200
    for name, value in weights(done.run).items():
        if name.endswith(("weight", "bias")):
            first, *_, last = shown.Histograms(f"weights/{name}")
            assert (first.step, last.step) == (0, 29)
            histogram = last.histogram_value
            assert histogram.num == value.numel()
            assert histogram.max == pytest.approx(value.max().item(), rel=1e-5)
    assert shown.Tags()["graph"]


def test_precision_recall_curves_are_of_each_class_against_the_others(train: RunScript) -> None:
    shown = board(train(*PICTURES).run)
    for name in CLASSES:
        event = shown.Tensors(f"precision_recall/{name}")[-1]
        true_positives, false_positives, *_ = make_ndarray(event.tensor_proto)
        assert true_positives[0] == 10  # at the threshold 0 all 10 of the class are found, among 100 images
        assert false_positives[0] == 90
    metadata = shown.SummaryMetadata("precision_recall/Bag").plugin_data.content
    assert pr_curve_data.PrCurvePluginData.FromString(metadata).num_thresholds == 127


def test_charts_name_curves_that_exist_and_put_training_beside_validation(train: RunScript) -> None:
    shown = board(train(*PICTURES).run)
    layout = layout_pb2.Layout.FromString(shown.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    logged = shown.Tags()["scalars"]
    lines = {
        chart.title: [[name for name in logged if re.match(tag, name)] for tag in chart.multiline.tag]
        for category in layout.category
        for chart in category.chart
    }
    assert lines["loss"] == [["train/loss"], ["val/loss"]]
    assert lines["accuracy"] == [["train/accuracy"], ["val/accuracy"]]
    assert lines["validation"] == [[name] for name in metric_names("val")[2:]]
    assert lines["training"] == [[name] for name in metric_names("train")[2:]]
    assert list(charts()) == [category.title for category in layout.category]


def test_projector_has_a_row_an_image_and_a_name_for_each_point(train: RunScript) -> None:
    run = train(*PICTURES, "pictures.embedding=50", "model.hidden=[12]").run
    folder = run / "embedding"
    points = [line.split("\t") for line in (folder / "tensors.tsv").read_text().splitlines()]
    assert [len(points), len(points[0])] == [50, 12]
    header, *rows = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
    assert header == ["class", "predicted"]
    assert len(rows) == 50
    assert {name for row in rows for name in row} <= set(CLASSES)
    with Image.open(folder / "sprite.png") as image:
        assert image.size == (8 * 28, 8 * 28)
    config = (run / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "embedding/tensors.tsv"' in config
    assert config.count("single_image_dim: 28") == 2


def test_projector_names_the_true_class_first(train: RunScript, data_root: Path) -> None:
    module = FashionMNISTDataModule(data_root, Augmentation(), batch_size=50, val_size=100, verify=False)
    module.prepare_data()
    module.setup()
    # A network that has learned next to nothing, so that the two columns differ.
    run = train(*PICTURES, "trainer.max_epochs=1", "optimizer=momentum", "optimizer.lr=1e-6").run
    rows = [line.split("\t") for line in (run / "embedding" / "metadata.tsv").read_text().splitlines()[1:]]
    truth = [CLASSES[label] for label in module.splits["val"][1].tolist()]
    assert [row[0] for row in rows] == truth
    assert [row[1] for row in rows] != truth


def test_confusion_matrix_is_that_of_the_metric(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, measured = [], []
    draw, compute = pictures.confusion_chart, ClassificationMetrics.compute
    monkeypatch.setattr(pictures, "confusion_chart", lambda counts: drawn.append(counts) or draw(counts))

    def remember(metrics: ClassificationMetrics) -> dict[str, torch.Tensor]:
        measured.append(compute(metrics)["confusion"])
        return compute(metrics)

    monkeypatch.setattr(ClassificationMetrics, "compute", remember)
    done = train(*PICTURES, "trainer.max_epochs=1", "optimizer=momentum", "optimizer.lr=1e-6", "data.val_size=90")
    assert done.status == 0, done.err
    (confusion,) = drawn
    assert not torch.equal(confusion, confusion.T)
    assert any(torch.equal(confusion, counts) for counts in measured)
    assert confusion.sum() == 90


def test_sprite_holds_the_images_row_by_row() -> None:
    images = torch.arange(5 * 2 * 3, dtype=torch.uint8).view(5, 2, 3)
    whole = sprite(images)
    assert whole.shape == (3 * 2, 3 * 3)
    assert torch.equal(whole[0:2, 3:6], images[1])
    assert torch.equal(whole[2:4, 3:6], images[4])
    assert not whole[4:].any()


def test_hparams_show_the_choices_and_the_final_validation_metrics(train: RunScript) -> None:
    run = train("model.dropout=0.3", "optimizer=sgd", "model.hidden=[12]", "seed=4").run
    shown = board(run)
    data = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    chosen = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    assert chosen["model"].string_value == "CNN"
    assert chosen["model.dropout"].number_value == 0.3
    assert chosen["model.hidden"].string_value == "[12]"
    assert chosen["optimizer"].string_value == "SGD"
    assert chosen["data.batch_size"].number_value == 50
    assert chosen["seed"].number_value == 4
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("val/accuracy", "val/loss"):
        (event,) = shown.Scalars(f"final/{name}")
        assert event.value == pytest.approx(metrics[name])
        assert event.step == 20


def test_without_validation_images_the_network_is_still_shown(train: RunScript) -> None:
    done = train(*PICTURES, "data.val_size=0")
    assert done.status == 0, done.err
    shown = board(done.run)
    assert sorted(shown.Tags()["images"]) == ["activations/1", "activations/2", "filters"]
    assert not (done.run / "embedding").exists()


def test_each_picture_can_be_left_out(train: RunScript) -> None:
    off = [f"pictures.{name}=false" for name in ("confusion", "precision_recall", "filters", "activations")]
    off += ["pictures.weights=false", "pictures.graph=false", "pictures.predictions=0", "pictures.embedding=0"]
    done = train("pictures=default", *off)
    assert done.status == 0, done.err
    tags = board(done.run).Tags()
    assert not tags["images"]
    assert not tags["histograms"]
    assert not tags["graph"]
    assert not any(name.startswith("precision_recall") for name in tags["tensors"])
    assert not (done.run / "embedding").exists()


def test_a_network_without_convolutions_is_shown_by_a_weight_for_each_pixel(train: RunScript) -> None:
    shown = board(train(*PICTURES, "model=mlp", "model.hidden=[20]").run)
    assert sorted(shown.Tags()["images"]) == ["confusion", "filters", "predictions"]
    assert shown.Tags()["graph"]


@pytest.mark.parametrize(
    "words", [("trainer.max_steps=15", "trainer.max_epochs=9"), ("trainer.check_val_every_n_epoch=2",)]
)
def test_the_end_of_the_training_is_always_drawn(train: RunScript, words: tuple[str, ...]) -> None:
    done = train("pictures=default", "pictures.every_n_epochs=5", "trainer.max_epochs=3", *words)
    assert done.status == 0, done.err
    shown = board(done.run)
    last = checkpoints.load(done.run / "checkpoints" / "last.ckpt")["global_step"] - 1
    for name in ("confusion", "predictions", "filters", "activations/1"):
        assert [picture.step for picture in shown.Images(name)] == [last]


def test_a_training_that_stops_early_is_drawn(train: RunScript) -> None:
    words = (
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=1.0",
    )
    done = train("pictures=default", "pictures.every_n_epochs=9", "trainer.max_epochs=9", *words)
    assert done.status == 0, done.err
    assert [picture.step for picture in board(done.run).Images("confusion")] == [19]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_pictures_are_drawn_in_every_precision(train: RunScript, precision: str) -> None:
    done = train(*PICTURES, f"trainer.precision={precision}", "report=true")
    assert done.status == 0, done.err
    assert "No graph saved" not in done.out
    assert board(done.run).Tags()["graph"]
    assert (done.run / "embedding" / "tensors.tsv").is_file()
    assert (done.run / "report.html").is_file()


def test_a_training_that_diverged_is_drawn_and_reported(train: RunScript) -> None:
    done = train(
        *PICTURES, "report=true", "optimizer=momentum", "optimizer.lr=1e20", "scheduler=constant", "stop_on_nan=false"
    )
    assert done.status == 0, done.err
    assert done.err == ""
    assert {"confusion", "predictions"} <= set(board(done.run).Tags()["images"])
    assert (done.run / "report.html").is_file()


def test_drawing_does_not_count_as_training_speed(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Pictures._draw

    def slowly(*arguments: Any) -> None:
        time.sleep(1.0)
        original(*arguments)

    monkeypatch.setattr(Pictures, "_draw", slowly)
    with (train("pictures=default", "pictures.every_n_epochs=1").run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["images_per_second"]) > 500 for row in rows[1:]] == [True, True]  # 500 images in an epoch
    assert float(rows[2]["seconds"]) - float(rows[1]["seconds"]) > 1.0
