"""scripts/predict.py as a person uses it."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
from conftest import Done, RunScript
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from fmnist.config.build import build_classifier, build_datamodule
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.info import CLASSES
from fmnist.evaluation.measure import measure
from fmnist.predict.formats import FORMATS, Prediction
from fmnist.predict.main import Reading, destination
from fmnist.runs import checkpoints

IMAGES, LABELS = synthetic.make(synthetic.TEST, seed=1)  # the test split of the made-up data


@pytest.fixture(scope="module")
def trained() -> list[Path]:
    """The run folder that the tests here share, once one of them has made it."""
    return []


@pytest.fixture
def run(trained: list[Path], train: RunScript) -> Path:
    if not trained:
        trained.append(train().run)
    return trained[0]


def save(count: int, folder: Path) -> None:
    """The first test images as PNG files: 000.png, 001.png, ..."""
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(IMAGES[:count]):
        Image.fromarray(image.numpy()).save(folder / f"{index:03}.png")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def probabilities_in_evaluation(run: Path) -> Tensor:
    """What the network tells (N, K) of the test images while evaluation measures it."""
    checkpoint = checkpoints.load(run / "checkpoints" / "best.ckpt")
    saved = OmegaConf.create(checkpoint[checkpoints.CONFIG_KEY])
    classifier = build_classifier(saved)
    checkpoints.restore_network(classifier.network, checkpoint)
    logits: list[Tensor] = []
    classifier.network.register_forward_hook(lambda *call: logits.append(call[2]))
    measure(build_evaluation_trainer(saved), classifier, build_datamodule(saved), "test")
    return torch.cat(logits).float().softmax(dim=1)


def assert_refused(done: Done, *fragments: str) -> None:
    done.assert_refused(*fragments)
    assert done.out == ""


def test_images_of_the_dataset_get_what_evaluation_gives_them(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    save(synthetic.TEST, tmp_path / "test")
    done = run_script("predict", f"run={run}", "images=test", "format=csv", "top=10", "accelerator=cpu")
    assert (done.status, done.err) == (0, "")
    rows = rows_of(done.out)
    assert [row["file"] for row in rows] == [f"test/{index:03}.png" for index in range(synthetic.TEST)]
    assert {row["inverted"] for row in rows} == {"False"}

    right = [row["class_1"] == CLASSES[label] for row, label in zip(rows, LABELS.tolist(), strict=True)]
    metrics = json.loads((run / "metrics.json").read_text())
    assert sum(right) / len(right) == pytest.approx(metrics["test/accuracy"])
    for row, expected in zip(rows, probabilities_in_evaluation(run).tolist(), strict=True):
        found = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in range(1, 11)}
        assert found == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_json_is_all_that_reaches_stdout(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    save(2, tmp_path / "été (1), new")
    Image.fromarray(255 - IMAGES[2].numpy()).save(tmp_path / "été (1), new" / "light.png")
    (tmp_path / "été (1), new" / "broken.png").write_bytes(b"")
    arguments = (f"run={run}", 'images="été (1), new"', "top=2")
    done = run_script("predict", *arguments, "format=json")
    assert done.status == 1
    found = json.loads(done.out)
    assert [Path(entry["file"]).name for entry in found] == ["000.png", "001.png", "light.png"]
    assert [entry["inverted"] for entry in found] == [False, False, True]
    for entry, label in zip(found, LABELS.tolist(), strict=False):
        first, second = entry["top"]
        assert first["class"] == CLASSES[label]
        assert first["probability"] > second["probability"] > 0
    broken, note = done.err.splitlines()
    assert broken == "été (1), new/broken.png: it is empty"
    assert note.startswith("1 of 3 images have light corners and were inverted")
    assert "background=dark" in note
    chosen = run_script("predict", *arguments, "format=json", "background=light")
    assert [entry["inverted"] for entry in json.loads(chosen.out)] == [True, True, True]
    assert len(chosen.err.splitlines()) == 1  # who has chosen need not be told


def test_the_table_names_three_classes_marks_the_inverted_and_goes_on_after_a_bad_file(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    save(2, tmp_path)
    Image.fromarray(255 - IMAGES[1].numpy()).resize((280, 280)).convert("RGB").save(tmp_path / "a photo.png")
    (tmp_path / "a drawing.svg").write_text("<svg/>")
    done = run_script("predict", f"checkpoint={run / 'checkpoints' / 'last.ckpt'}", "images=*.*g")
    assert done.status == 1
    header, _, first, second, photo = done.out.splitlines()
    assert header.split() == ["1st", "2nd", "3rd", "inverted", "file"]
    assert first.startswith(CLASSES[LABELS[0]])
    assert (first.count("%"), second.count("yes"), photo.count("yes")) == (3, 0, 1)
    assert [line[header.index("file") :] for line in (first, second, photo)] == ["000.png", "001.png", "a photo.png"]
    assert photo[:11].strip() == second[:11].strip() == CLASSES[LABELS[1]]
    assert done.err.splitlines()[0] == "a drawing.svg: an SVG drawing has no pixels; save it as PNG first"


def test_the_result_goes_to_a_file_and_does_not_depend_on_the_batches(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    save(20, tmp_path / "test")
    for size in (1, 7, 20, 256):
        words = (f"output={size}.csv", "format=csv", f"batch_size={size}")
        done = run_script("predict", f"run={run}", "images='test/*.png'", *words)
        assert (done.status, done.out, done.err) == (0, "", "")
    names = [[row["class_1"] for row in rows_of((tmp_path / f"{size}.csv").read_text())] for size in (1, 7, 20, 256)]
    assert len(names[0]) == 20
    assert names[0] == names[1] == names[2] == names[3]
    assert sorted(path.name for path in tmp_path.glob("*.csv*")) == ["1.csv", "20.csv", "256.csv", "7.csv"]


def test_no_more_than_a_batch_is_read_ahead(tmp_path: Path) -> None:
    save(10, tmp_path)
    asked: list[int] = []

    def files() -> Iterator[str]:
        for index in range(10):
            asked.append(index)
            yield str(tmp_path / f"{index:03}.png")

    reading = Reading(lambda pixels: torch.eye(10)[: len(pixels)], "auto", top=1, batch_size=4)
    predictions = reading.predictions(files())
    assert next(predictions).probabilities == {CLASSES[0]: 1.0}
    assert len(asked) == 4
    assert len(list(predictions)) == 9
    assert (reading.named, reading.failed, reading.inverted) == (10, 0, 0)


def test_the_picture_shows_the_pixels_that_the_network_saw(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    image = IMAGES[0].clone()
    image[14, 14], image[0, 0] = 255, 0
    Image.fromarray(image.numpy()).save(tmp_path / "costs $5 or $6.png")
    done = run_script("predict", f"run={run}", "images='costs $5 or $6.png'", "saw=saw.png")
    assert (done.status, done.err) == (0, "")
    with Image.open(tmp_path / "saw.png") as picture:
        shown = np.asarray(picture.convert("L"))
    every_place = np.lib.stride_tricks.sliding_window_view(shown, (4 * 28, 4 * 28))[:, :, 1::4, 1::4]
    assert (np.abs(every_place.astype(np.int16) - image.numpy()) <= 1).all(axis=(2, 3)).any()


def test_the_picture_has_64_images_at_most(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    save(70, tmp_path / "test")
    heights = []
    for pattern in ("'test/0[0-5]?.png'", "'test/*'"):  # 60, which are 8 rows of 8, and 70
        done = run_script("predict", f"run={run}", f"images={pattern}", "saw=saw.png", "batch_size=16", "format=csv")
        assert (done.status, done.err) == (0, "")
        with Image.open(tmp_path / "saw.png") as picture:
            heights.append(picture.height)
    assert len(rows_of(done.out)) == 70
    assert heights[0] == heights[1]


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ([], ["images", "there has to be"]),
        (["images=nowhere"], ["images=nowhere", "no such file"]),
        (["images=empty"], ["images=empty", "no images in this folder"]),
        (["images='*.tif'"], ["images=*.tif", "nothing matches"]),
        (["images=a.png", "top=11"], ["top=11", "10"]),
        (["images=a.png", "top=0"], ["top=0", "1"]),
        (["images=a.png", "format=xml"], ["format=xml", "'csv'"]),
        (["images=a.png", "background=white"], ["background=white", "'light'"]),
        (["images=a.png", "batch_size=0"], ["batch_size=0"]),
        (["images=a.png", "output=nowhere/a.csv"], ["output=nowhere/a.csv", "no folder nowhere"]),
        (["images=a.png", "output=empty"], ["output=empty", "no file"]),
        (["images=a.png", "output=./a.png"], ["output=./a.png", "one of the images"]),
        (["images=a.png", "saw=a.jpg"], ["saw=a.jpg", ".png"]),
        (["images=a.png", "saw=a.png"], ["saw=a.png", "one of the images"]),
        (["images=a.png", "run=nowhere"], ["run=nowhere", "no such folder"]),
        (["images=a.png", "checkpoint=nowhere"], ["either"]),
        (["images=a.png", "accelerator=abacus"], ["accelerator=abacus"]),
    ],
)
def test_mistakes_are_refused(
    words: list[str], fragments: list[str], run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    Image.fromarray(IMAGES[0].numpy()).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    chosen = [] if any(word.startswith("run=") for word in words) else [f"run={run}"]
    before = sorted(tmp_path.iterdir())
    assert_refused(run_script("predict", *chosen, *words), *fragments)
    assert sorted(tmp_path.iterdir()) == before


def test_the_result_and_the_picture_of_it_need_two_files(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    save(1, tmp_path / "test")
    done = run_script("predict", f"run={run}", "images=test", "output=./a.png", f"saw={tmp_path}/a.png")
    assert_refused(done, "saw=", "output")
    assert not (tmp_path / "a.png").exists()


def test_a_network_of_no_numbers_is_refused_and_leaves_no_file(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    checkpoint = checkpoints.load(run / "checkpoints" / "best.ckpt")
    for value in checkpoints.network_weights(checkpoint).values():
        value.copy_(torch.full_like(value, float("nan")) if value.is_floating_point() else value)
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    save(1, tmp_path / "test")
    done = run_script("predict", "checkpoint=nan.ckpt", "images=test", "output=a.csv", "saw=a.png")
    assert_refused(done, "nan.ckpt", "NaN")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "outputs") == ["nan.ckpt", "test"]


@pytest.mark.parametrize(
    ("trainer", "fragment"),
    [("hello", "trainer"), (["a"], "trainer"), ({"precision": "hello"}, "Precision"), ({"precision": {}}, "Precision")],
)
def test_a_strangers_checkpoint_gets_one_line(
    trainer: object, fragment: str, run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    checkpoint = checkpoints.load(run / "checkpoints" / "best.ckpt")
    checkpoint[checkpoints.CONFIG_KEY]["trainer"] = trainer
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    save(1, tmp_path / "test")
    assert_refused(run_script("predict", "checkpoint=odd.ckpt", "images=test"), fragment)


def test_names_keep_to_their_line_in_a_table_and_a_csv() -> None:
    odd = Prediction("a\nb\x1b[2J\udcff,é.png", inverted=True, probabilities={"Bag": 1.0})
    assert list(FORMATS["table"]([odd], 1))[2:] == ["Bag         100.0%  yes       a\\nb\\x1b[2J\\udcff,é.png"]
    assert list(FORMATS["csv"]([odd], 1))[1:] == ['"a\\nb\\x1b[2J\\udcff,é.png",True,Bag,1.000000']
    assert json.loads("\n".join(FORMATS["json"]([odd], 1)))[0]["file"] == odd.file
    assert json.loads("\n".join(FORMATS["json"]([], 1))) == []


def test_a_reader_that_has_seen_enough_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with destination(None) as stream:
            print("a" * 100_000, file=stream)
        monkeypatch.undo()
