"""TensorBoard's pictures, charts and hyperparameters of a run, read back from its files."""

import csv
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from conftest import RunScript
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import FASHION_MNIST
from fmnist.runs import checkpoints
from fmnist.training.callbacks import pictures
from fmnist.training.callbacks.pictures import Pictures
from fmnist.training.metric_names import metric_names
from fmnist.training.tensorboard import hyperparameters, tag, trial_name

CLASSES = FASHION_MNIST.classes
PICTURES = ("pictures=default", "pictures.every_n_epochs=2", "pictures.embedding=50")
NETWORK = ["view/filters", "view_layers/blocks.0", "view_layers/blocks.4"]
EMBEDDING = "00000/embedding"
OFF = [f"pictures.{name}=false" for name in ("precision_recall", "activations", "weights", "graph")]
FEW = ("pictures=default", *OFF, "pictures.predictions=0", "pictures.embedding=0")  # the confusion matrix and filters


def board(run: Path) -> EventAccumulator:
    shown = EventAccumulator(str(run), size_guidance={"images": 0, "tensors": 0, "histograms": 0})
    shown.Reload()
    return shown


@pytest.fixture(scope="module")
def kept() -> list[Any]:
    return []


@pytest.fixture
def drawn(
    kept: list[Any], train: RunScript, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> list[Any]:
    """A run of three epochs that hardly learns, what its files show, and the counts of its confusion matrices."""
    if not kept:
        matrices = []
        draw = pictures.confusion_chart
        monkeypatch.setattr(pictures, "confusion_chart", lambda *given: matrices.append(given[0]) or draw(*given))
        overrides = ("optimizer=momentum", "optimizer.lr=1e-6", "model.hidden=[12]", "trainer.max_epochs=3")
        run = Path(shutil.move(train(*PICTURES, *overrides).run, tmp_path_factory.mktemp("drawn") / "run"))
        kept += [run, board(run), matrices]
    return kept


def test_pictures_are_drawn_every_n_epochs_and_after_the_last(drawn: list[Any]) -> None:
    run, shown, _ = drawn
    names = sorted([*NETWORK, "view/confusion", "view/predictions"])
    assert sorted(shown.Tags()["images"]) == names
    for name in names:
        assert [picture.step for picture in shown.Images(name)] == [19, 29]
        assert shown.Images(name)[0].width > 200
    for name, value in checkpoints.network_weights(checkpoints.load(run / "checkpoints" / "last.ckpt")).items():
        if name.endswith(("weight", "bias")):
            first, *_, last = shown.Histograms(f"weights/{name}")
            assert (first.step, last.step) == (0, 29)
            assert last.histogram_value.num == value.numel()
            assert last.histogram_value.max == pytest.approx(value.max().item(), rel=1e-5)
    assert shown.Tags()["graph"]
    for name in CLASSES:  # precision-recall curves of each class against the others
        true_positives, false_positives, *_ = make_ndarray(shown.Tensors(f"precision_recall/{name}")[-1].tensor_proto)
        assert true_positives[0] == 10  # at the threshold 0 all 10 of the class are found, among 100 images
        assert false_positives[0] == 90


def test_charts_show_training_with_validation_and_all_classes(drawn: list[Any]) -> None:
    _, shown, _ = drawn
    layout = layout_pb2.Layout.FromString(shown.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    logged = shown.Tags()["scalars"]
    lines = {
        chart.title: [[name for name in logged if re.match(tag, name)] for tag in chart.multiline.tag]
        for category in layout.category
        for chart in category.chart
    }
    assert lines["loss"] == [["loss/train"], ["loss/val"]]
    assert lines["accuracy"] == [["accuracy/train"], ["accuracy/val"]]
    assert lines["validation"] == [[f"val_accuracy_per_class/{name}"] for name in CLASSES]
    assert lines["training"] == [[f"train_accuracy_per_class/{name}"] for name in CLASSES]


def test_projector_has_a_row_an_image_and_names_for_each_point(drawn: list[Any], data_root: Path) -> None:
    module = ImageDataModule(synthetic.dataset(data_root), Augmentation(), batch_size=50, val_size=100)
    module.prepare_data()
    module.setup()
    images, labels = module.splits["val"]
    folder = drawn[0] / EMBEDDING
    points = [line.split("\t") for line in (folder / "tensors.tsv").read_text().splitlines()]
    assert [len(points), len(points[0])] == [50, 12]
    header, *rows = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
    assert header == ["class", "predicted"]
    truth = [CLASSES[label] for label in labels[:50].tolist()]
    assert [row[0] for row in rows] == truth
    assert [row[1] for row in rows] != truth  # as the network is almost untrained
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (8 * 28, 8 * 28)
        tile = np.asarray(sprite.convert("L"))[28:56, 28:56]
        assert np.allclose(tile, images[9, 0], atol=1)
    assert f'tensor_path: "{EMBEDDING}/tensors.tsv"' in (drawn[0] / "projector_config.pbtxt").read_text()


def test_confusion_matrix_is_that_of_the_last_validation(drawn: list[Any]) -> None:
    run, _, matrices = drawn
    confusion = matrices[-1]
    assert not torch.equal(confusion, confusion.T)
    assert confusion.sum() == 100
    with (run / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    recall = confusion.diagonal() / confusion.sum(dim=1)  # by true class
    assert [float(row[f"val/accuracy_per_class/{name}"]) for name in CLASSES] == pytest.approx(recall.tolist())


def test_hparams_show_overrides_and_the_result_of_the_chosen_checkpoint(drawn: list[Any]) -> None:
    run, shown, _ = drawn
    data = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    row = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
    assert row.group_name.startswith("run (drawn") or re.match(r"\d\d-\d\d_", row.group_name)
    assert row.hparams["optimizer"].string_value == "momentum"
    assert row.hparams["optimizer.lr"].number_value == 1e-6
    assert row.hparams["model.hidden"].string_value == "[12]"
    assert not {"augment", "seed", "outputs", "data.root", "pictures"} & row.hparams.keys()
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("val/accuracy", "val/loss"):
        (event,) = shown.Scalars(f"result/{name}")
        assert event.value == pytest.approx(metrics[name])
        assert event.step == 30


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=mlp", "model.dropout=0.4", "seed=1"], {"model": "mlp", "model.dropout": 0.4, "seed": "1"}),
        (["+callbacks=ema", "callbacks.ema.decay=null"], {"callbacks": "ema", "callbacks.ema.decay": "null"}),
        (
            ["experiment=fast_94", "sweep=seeds", "trainer.max_epochs=9"],
            {"experiment": "fast_94", "trainer.max_epochs": 3},
        ),
        (["name=mine", "report=false", "trainer.accelerator=cpu", "pictures=none", "~callbacks"], {"seed": "1"}),
        ([], {"seed": "1"}),
    ],
    ids=["group, value, seed", "null", "recipe, resumed", "no difference", "default"],
)
def test_hyperparameters_are_the_overrides_that_affect_the_result(
    overrides: list[str], expected: dict[str, object]
) -> None:
    model = {"_target_": "fmnist.models.MLP", "dropout": 0.4}
    callbacks = {"ema": {"_target_": "fmnist.training.callbacks.AveragedWeights", "decay": None}}
    config = {"seed": 1, "name": "mine", "model": model, "callbacks": callbacks, "trainer": {"max_epochs": 3}}
    assert hyperparameters(config, overrides) == expected


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("train/2026-11-30_09-27-40", "11-30_09-27-40 (train/2026-11-30_09-27-40)"),
        ("sweep_a/model.dropout=0.1,optimizer=sgd", "0.1, sgd (sweep_a/model.dropout=0.1,optimizer=sgd)"),
        ("study/trial_7", "trial_7 (study/trial_7)"),
    ],
)
def test_trials_begin_with_what_tells_them_apart(folder: str, name: str) -> None:
    assert trial_name(Path("outputs", folder)) == name


@pytest.mark.parametrize("classes", [CLASSES, [f"class {k}" for k in range(30)]], ids=["10", "30"])
def test_accuracy_and_loss_are_the_first_groups_and_the_first_metrics_of_hparams(classes: Sequence[str]) -> None:
    logged = [name for phase in ("train", "val") for name in metric_names(phase, classes)]
    logged += [
        "train/loss_step",
        "train/images_per_second",
        "learning_rate",
        "learning_rate/filters-momentum",
        "view/filters",
    ]
    tags = sorted(map(tag, logged))  # as the table HParams has them
    groups = list(dict.fromkeys(each.split("/")[0] for each in tags))
    assert groups[:2] == ["accuracy", "loss"]
    assert [each for each in tags if "top5" not in each][:4] == [
        "accuracy/train",
        "accuracy/val",
        "loss/train",
        "loss/val",
    ]
    assert groups[2:] == ["train_accuracy_per_class", "training", "val_accuracy_per_class", "view"]
    assert "training/learning_rate/filters-momentum" in tags


def test_without_validation_images_the_network_is_still_drawn(train: RunScript) -> None:
    done = train(*PICTURES, "data.val_size=0", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert sorted(board(done.run).Tags()["images"]) == NETWORK
    assert not (done.run / EMBEDDING).exists()


STOPPED = [f"callbacks.early_stopping.{word}" for word in ("patience=1", "min_delta=1.0")]


@pytest.mark.parametrize(
    ("overrides", "step"),
    [
        pytest.param(("trainer.max_steps=15", "trainer.max_epochs=9"), 14, marks=pytest.mark.slow),
        pytest.param(("trainer.check_val_every_n_epoch=2",), 29, marks=pytest.mark.slow),
        (("callbacks=early_stopping", *STOPPED), 19),
    ],
    ids=["max_steps", "rare validation", "early stopping"],
)
def test_the_end_of_the_training_is_always_drawn(train: RunScript, overrides: tuple[str, ...], step: int) -> None:
    done = train(*FEW, "pictures.every_n_epochs=5", "trainer.max_epochs=3", *overrides)
    assert done.status == 0, done.err
    shown = board(done.run)
    tags = shown.Tags()
    assert sorted(tags["images"]) == ["view/confusion", "view/filters"]
    assert not tags["graph"]
    assert not tags["histograms"]
    assert not (done.run / EMBEDDING).exists()
    for name in tags["images"]:
        assert [picture.step for picture in shown.Images(name)] == [step]


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mlp", "model.hidden=[20]", "trainer.precision=64-true"),
        ("trainer.precision=bf16-true",),
        ("optimizer=momentum", "optimizer.lr=1e20", "scheduler=constant", "stop_on_nan=false"),
    ],
    ids=["no convolution, double", "half", "diverged"],
)
def test_every_training_is_drawn_and_reported(train: RunScript, overrides: tuple[str, ...]) -> None:
    done = train(*PICTURES, "report=true", "trainer.max_epochs=1", *overrides)
    assert (done.status, done.err) == (0, "")
    assert "No graph saved" not in done.out
    tags = board(done.run).Tags()
    assert {"view/confusion", "view/predictions", "view/filters"} <= set(tags["images"])
    assert tags["graph"]
    assert (done.run / EMBEDDING / "tensors.tsv").is_file()
    assert (done.run / "report.html").is_file()


@pytest.mark.slow
def test_drawing_does_not_count_as_training_speed(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pictures, "_draw", lambda *_: time.sleep(0.5))
    with (train(*FEW, "pictures.every_n_epochs=1").run / "metrics.csv").open() as file:
        first, second = list(csv.DictReader(file))[1:]
    elapsed = float(second["seconds"]) - float(first["seconds"])
    assert 500 / float(second["images_per_second"]) + 0.5 <= elapsed  # 500 images in an epoch
