"""scripts/predict.py as a user runs it."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
from conftest import RunScript
from PIL import Image

from fmnist.config.build import build_datamodule
from fmnist.config.restore import restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.info import FASHION_MNIST
from fmnist.evaluation.measure import measure
from fmnist.predict.classify import FileClassifier, Outputs, Predictor
from fmnist.predict.formats import FORMATS, Prediction
from fmnist.predict.main import open_output
from fmnist.runs import checkpoints

IMAGES, LABELS = synthetic.make(synthetic.TEST, seed=1, black=True)  # the test split of `run`
CLASSES = FASHION_MNIST.classes


@pytest.fixture(scope="module")
def trained() -> list[Path]:
    return []


@pytest.fixture
def run(trained: list[Path], train: RunScript, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder that the tests share, after the first of them has trained it."""
    if not trained:
        data = synthetic.write(tmp_path_factory.mktemp("data"), black=True)
        trained.append(train(f"data.root={data}").run)
    return trained[0]


def save(count: int, folder: Path) -> None:
    """Save the first test images as 000.png, 001.png, ..."""
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(IMAGES[:count]):
        Image.fromarray(image.numpy()).save(folder / f"{index:03}.png")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_images_of_the_dataset_get_the_calibrated_probabilities_of_evaluation(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    save(synthetic.TEST, tmp_path / "test")
    done = run_script("predict", f"run={run}", "images=test", "format=csv", "top=10", "accelerator=cpu")
    assert (done.status, done.err) == (0, "")
    rows = rows_of(done.out)
    assert [row["file"] for row in rows] == [f"test/{index:03}.png" for index in range(synthetic.TEST)]
    assert {row["inverted"] for row in rows} == {"False"}
    correct = [row["class_1"] == CLASSES[label] for row, label in zip(rows, LABELS.tolist(), strict=True)]
    metrics = json.loads((run / "metrics.json").read_text())
    assert sum(correct) / len(correct) == pytest.approx(metrics["test/accuracy"])

    config, classifier, _, calibrator, _ = restore(run / "checkpoints" / "best.ckpt", "cpu")
    logits = measure(build_evaluation_trainer(config), classifier, build_datamodule(config), "test").logits
    assert calibrator is not None
    for row, expected in zip(rows, calibrator.probabilities(logits).tolist(), strict=True):
        found = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in range(1, 11)}
        assert found == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_json_is_the_only_output_and_errors_go_to_stderr(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    folder = tmp_path / "été (1), new"
    save(2, folder)
    Image.fromarray(255 - IMAGES[2].numpy()).save(folder / "light.png")
    (folder / "broken.png").write_bytes(b"")
    Image.new("L", (28, 28), 90).save(folder / "blank.png")
    done = run_script("predict", f"run={run}", 'images="été (1), new"', "top=2", "format=json")
    assert done.status == 1
    found = json.loads(done.out)
    assert [Path(entry["file"]).name for entry in found] == ["000.png", "001.png", "light.png"]
    assert [entry["inverted"] for entry in found] == [False, False, True]
    for entry, label in zip(found, LABELS.tolist(), strict=False):
        first, second = entry["top"]
        assert first["class"] == CLASSES[label]
        assert first["probability"] > second["probability"] > 0
    assert done.err.splitlines() == [
        "été (1), new/blank.png: too little contrast: nothing stands out from the background",
        "été (1), new/broken.png: it is empty",
    ]


def test_table_has_three_classes_and_marks_inverted_images(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    save(1, tmp_path)
    Image.fromarray(255 - IMAGES[1].numpy()).convert("RGB").save(tmp_path / "a photo.png")
    done = run_script("predict", f"checkpoint={run / 'checkpoints' / 'last.ckpt'}", "images=*.png")
    assert done.status == 0
    header, _, first, photo = done.out.splitlines()
    assert header.split() == ["1st", "2nd", "3rd", "file"]
    assert (first.count("%"), photo.count("%")) == (3, 3)
    assert [line[header.index("file") :] for line in (first, photo)] == ["000.png", "a photo.png  (inverted)"]
    assert [line[:11].strip() for line in (first, photo)] == [CLASSES[label] for label in LABELS[:2]]


def test_batch_size_changes_no_result_in_a_file_and_preview_has_at_most_64_images(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    save(70, tmp_path / "test")
    heights, names = [], []
    for pattern, size in (("'test/0[0-5]?.png'", 7), ("'test/*'", 256)):  # 60 images, which are 8 rows of 8, and 70
        arguments = ("output=a.csv", "format=csv", f"batch_size={size}", "preview=a.png")
        done = run_script("predict", f"run={run}", f"images={pattern}", *arguments)
        assert (done.status, done.out, done.err) == (0, "", "")
        names.append([row["class_1"] for row in rows_of((tmp_path / "a.csv").read_text())])
        with Image.open(tmp_path / "a.png") as picture:
            heights.append(picture.height)
    assert [len(found) for found in names] == [60, 70]
    assert names[0] == names[1][:60]
    assert heights[0] == heights[1]
    assert len(list(tmp_path.glob("*.csv*"))) == 1


def test_files_are_read_one_batch_ahead(tmp_path: Path) -> None:
    save(10, tmp_path)
    files = iter(sorted(str(file) for file in tmp_path.iterdir()))

    class Constant(Predictor):
        calibrator = detector = None
        dataset = FASHION_MNIST

        def __init__(self) -> None: ...

        def __call__(self, pixels: torch.Tensor) -> Outputs:
            return Outputs(torch.eye(10)[: len(pixels)], None)

    classifier = FileClassifier(Constant(), top=1, batch_size=4)
    assert next(classifier.predictions(files)).probabilities == {CLASSES[0]: 1.0}
    assert len(list(files)) == 6


def test_preview_shows_the_pixels_of_the_network_input(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    image = IMAGES[0].clone()
    image[14, 14], image[0, 0] = 255, 0
    Image.fromarray(image.numpy()).save(tmp_path / "costs $5 or $6.png")
    done = run_script("predict", f"run={run}", "images='costs $5 or $6.png'", "preview=preview.png")
    assert (done.status, done.err) == (0, "")
    with Image.open(tmp_path / "preview.png") as picture:
        shown = np.asarray(picture.convert("L"))
    windows = np.lib.stride_tricks.sliding_window_view(shown, (4 * 28, 4 * 28))[:, :, 1::4, 1::4]
    assert (np.abs(windows.astype(np.int16) - image.numpy()) <= 1).all(axis=(2, 3)).any()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("images=empty", ["images=empty", "no images in this folder"]),
        ("images='*.tif'", ["images=*.tif", "matches none"]),
        ("images=a.png top=11", ["top=11: must be at most 10"]),
        ("images=a.png output=empty", ["output=empty", "must be a file"]),
        ("images=a.png output=./a.png", ["output=./a.png", "one of the images"]),
        ("images=a.png preview=a.jpg", ["preview=a.jpg", ".png"]),
        ("images=a.png preview=a.png", ["preview=a.png", "one of the images"]),
        ("images=a.png output=./b.png preview=empty/../b.png", ["preview=empty/../b.png", "output"]),
        ("images=a.png run=nowhere", ["run=nowhere", "no such folder"]),
        ("images=a.png accelerator=abacus", ["accelerator=abacus"]),
        ("images=a.png checkpoint=nan.ckpt run=null output=b.csv preview=b.png", ["nan.ckpt", "NaN"]),
        ("images=a.png checkpoint=rgb.ckpt run=null", ["rgb.ckpt", "1 numbers for 3 channels"]),
        ("images=a.png checkpoint=odd.ckpt run=null", ["Precision"]),
    ],
)
def test_wrong_input_is_refused_and_writes_no_file(
    arguments: str, fragments: list[str], run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    Image.fromarray(IMAGES[0].numpy()).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    checkpoint = checkpoints.load(run / "checkpoints" / "best.ckpt")
    weights = checkpoints.network_weights(checkpoint)
    for value in weights.values():
        value.copy_(torch.full_like(value, float("nan")) if value.is_floating_point() else value)
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    first = next(iter(weights))  # (F, C, 3, 3)
    checkpoint["state_dict"][f"network.{first}"] = weights[first].repeat(1, 3, 1, 1)
    checkpoint[checkpoints.DATASET_KEY]["image_shape"] = [3, 28, 28]
    torch.save(checkpoint, tmp_path / "rgb.ckpt")
    odd = checkpoints.load(run / "checkpoints" / "best.ckpt")
    odd[checkpoints.CONFIG_KEY]["trainer"]["precision"] = {}
    torch.save(odd, tmp_path / "odd.ckpt")
    before = sorted(tmp_path.iterdir())
    given = [] if "run=" in arguments else [f"run={run}"]
    done = run_script("predict", *given, *arguments.split())
    done.assert_refused(*fragments)
    assert done.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_names_of_files_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    odd = Prediction("a\nb\x1b[2J\udcff,é.png", torch.zeros(1, 1), inverted=True, probabilities={"Bag": 1.0})
    written = {}
    for name, write in FORMATS.items():
        write(sys.stdout, [odd], 1, [], CLASSES)
        written[name] = capsys.readouterr().out
    assert written["table"].splitlines()[2:] == ["Bag         100.0%  a\\nb\\x1b[2J\\udcff,é.png  (inverted)"]
    assert written["csv"].splitlines()[1:] == ['"a\\nb\\x1b[2J\\udcff,é.png",True,Bag,1.000000']
    assert json.loads(written["json"])[0]["file"] == odd.file


def test_reader_that_closes_the_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with open_output(None) as stream:
            print("a" * 100_000, file=stream)
