"""scripts/show_data.py as a person uses it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Done, RunScript
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_wrong_input import assert_one_line

from fmnist.data import show_data
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.data.info import CLASSES
from fmnist.plotting.tiles import tiles

NAMES = ["batch", "pixels", "class_counts", "class_means", "augmented"]


@pytest.fixture
def show(run_script: RunScript, data_root: Path) -> RunScript:
    """Runs the script on the made-up images."""
    small = ("data=folder", f"data.root={data_root}", "data.val_size=100", "images=10")

    def run(*words: str) -> Done:
        flags = [word for word in words if word.startswith("-")]
        return run_script("show_data", *flags, *small, *(word for word in words if word not in flags))

    return run


@pytest.fixture
def datamodule(data_root: Path) -> FashionMNISTDataModule:
    made = FashionMNISTDataModule(str(data_root), Augmentation(), 10, val_size=100, verify=False, seed=3)
    made.prepare_data()
    made.setup()
    return made


def folder_of(done: Done) -> Path:
    (folder,) = done.folder.glob("outputs/show_data/*")
    return folder


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def test_the_script_tells_the_sizes_and_leaves_the_pictures_as_files_and_in_tensorboard(show: RunScript) -> None:
    done = show("index=7")
    assert done.status == 0, done.err
    assert done.err == ""
    folder = folder_of(done)
    names = {path.name for path in folder.iterdir()}
    (events,) = (name for name in names if name.startswith("events.out.tfevents"))
    assert names - {events} == {f"{name}.png" for name in NAMES}

    lines = done.out.splitlines()
    for split, count in (("train", "500"), ("val", "100"), ("test", "200")):
        assert any(line.split() == [split, count, "images"] for line in lines)
    assert any("1 x 28 x 28" in line for line in lines)
    assert any(line.startswith("10 classes: ") and line.endswith(", ".join(CLASSES)) for line in lines)
    for name in NAMES:
        assert sum(line.startswith(f"{folder / name}.png: ") for line in lines) == 1
    assert any("pixels.png: training image 7 " in line for line in lines)
    assert any("augmented.png: " in line and "flip=0.5, shift=2, erase=0.5" in line for line in lines)
    assert lines[-1].endswith(f"tensorboard --logdir {folder}")

    shown = EventAccumulator(str(folder), size_guidance={"images": 0})
    shown.Reload()
    assert sorted(shown.Tags()["images"]) == sorted(NAMES)
    for name in NAMES:
        (event,) = shown.Images(name)
        with Image.open(io.BytesIO(event.encoded_image_string)) as image:
            assert np.array_equal(np.asarray(image), pixels_of(folder / f"{name}.png"))


def test_the_words_reach_the_pictures(show: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(show_data, "pictures", lambda *arguments: asked.append(arguments) or iter(()))
    for word in ("seed=3", "index=499", "images=20", "augment=flip", "data.val_size=0"):
        assert show(word).status == 0
    told = [(len(splits["train"][0]), augment.shift, *rest) for splits, augment, *rest in asked]
    assert told == [
        (500, 2, 3, 10, 0),
        (500, 2, 0, 10, 499),
        (500, 2, 0, 20, 0),
        (500, 0, 0, 10, 0),
        (600, 2, 0, 10, 0),
    ]


def test_a_sweep_leaves_a_folder_for_each_job(show: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiles(torch.rand(1, 28, 28))
    monkeypatch.setattr(show_data, "pictures", lambda *_: iter([("batch", "an image", one)]))
    done = show("-m", "seed=0,1")
    assert done.status == 0, done.err
    assert {file.parent.name for file in folder_of(done).glob("*/batch.png")} == {"seed=0", "seed=1"}


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("index=500", "less than 500"),
        ("index=-1", "greater than or equal to 0"),
        ("index=first", "integer"),
        ("images=0", "greater than or equal to 1"),
        ("images=1000", "less than or equal to 256"),
        ("seed=-1", "greater than or equal to 0"),
        ("augment.flip=2", "less than or equal to 1"),
        ("augment=turn", "no such option"),
        ("image=3", "did you mean images"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(show: RunScript, word: str, allowed: str) -> None:
    assert_one_line(show(word), word.split("=")[0], allowed)


def test_a_failure_while_drawing_leaves_nothing(show: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(show_data, "class_counts_chart", full)
    assert_one_line(show(), "no space left")


def test_the_batch_is_the_first_that_a_training_with_this_seed_sees(datamodule: FashionMNISTDataModule) -> None:
    images, labels = next(iter(datamodule.train_dataloader()))
    _, seen, figure = next(show_data.pictures(datamodule.splits, datamodule.augment, seed=3, count=10, index=0))
    assert "10 training images" in seen
    assert [text.get_text() for text in figure.axes[0].texts] == [CLASSES[label] for label in labels.tolist()]
    canvas = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    first = canvas[~np.isnan(canvas).all(axis=1)][:112:4, :][:, ~np.isnan(canvas).all(axis=0)][:, :112:4]
    assert np.allclose(first * 255, images[0, 0])


def test_the_pixels_are_those_of_the_training_image_with_that_index(datamodule: FashionMNISTDataModule) -> None:
    images, labels = datamodule.splits["train"]
    pictures = {
        name: (seen, figure)
        for name, seen, figure in show_data.pictures(datamodule.splits, datamodule.augment, seed=0, count=4, index=499)
    }
    assert list(pictures) == NAMES
    seen, figure = pictures["pixels"]
    assert "training image 499" in seen
    assert CLASSES[labels[499]] in seen
    written = [int(text.get_text()) for text in figure.axes[0].texts]
    assert written == images[499].flatten().tolist()
    assert [panel.get_title(loc="left") for panel in pictures["class_counts"][1].axes] == [
        "train: 500 images",
        "val: 100 images",
        "test: 200 images",
    ]
    assert [text.get_text() for text in pictures["class_counts"][1].axes[2].texts] == ["20"] * 10


def test_class_means_are_the_means_of_the_classes() -> None:
    images = torch.randint(0, 256, (40, 1, 5, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(40) % 9  # none of class 9
    means = show_data.class_means(images, labels)
    assert means.shape == (10, 5, 6)
    for label in range(9):
        assert np.allclose(means[label], images.numpy()[labels.numpy() == label, 0].mean(axis=0))
    assert means[9].isnan().all()


def test_augmented_images_stand_beneath_their_originals() -> None:
    images = torch.randint(1, 256, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    seen, figure = show_data.augmented(images, torch.tensor([8, 4]), Augmentation(flip=1.0), seed=0)
    assert "flip=1.0" in seen
    assert "shift" not in seen
    assert [text.get_text() for text in figure.axes[0].texts] == [
        *("original\nBag", "original\nCoat"),
        *("augmented\nBag", "augmented\nCoat") * 3,
    ]
    canvas = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    there = ~np.isnan(canvas)
    rows = canvas[there.any(axis=1)][:, there.any(axis=0)][::4, ::4].reshape(4, 28, 2, 28)
    for row in rows[1:]:
        assert np.array_equal(row[:, 0], rows[0, :, 0, ::-1])
        assert np.array_equal(row[:, 1], rows[0, :, 1, ::-1])


def test_mixed_images_are_named_by_their_shares() -> None:
    images = torch.stack([torch.zeros(1, 28, 28), torch.full((1, 28, 28), 255.0)]).to(torch.uint8)
    augment = Augmentation(mixup=1.0)
    seen, figure = show_data.augmented(images, torch.tensor([8, 4]), augment, seed=0)
    assert "(mixup=1.0, mix=1.0)" in seen
    texts = [text.get_text().split("\n") for text in figure.axes[0].texts]
    assert texts[:2] == [["original", "Bag"], ["original", "Coat"]]
    canvas = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    there = ~np.isnan(canvas)
    rows = canvas[there.any(axis=1)][:, there.any(axis=0)][::4, ::4].reshape(4, 28, 2, 28)
    for place, (_, *lines) in enumerate(texts[2:], 2):
        shares = {name: int(share.rstrip("%")) / 100 for share, name in (line.split(maxsplit=1) for line in lines)}
        assert sum(shares.values()) == pytest.approx(1, abs=0.011)
        assert rows[place // 2, :, place % 2] == pytest.approx(np.full((28, 28), shares["Coat"]), abs=0.01)  # white


def test_names_of_labels_and_of_shares() -> None:
    shares = torch.zeros(3, 10)
    shares[0, 8], shares[0, 4] = 0.304, 0.696
    shares[1, 0] = 1.0
    shares[2, 9], shares[2, 1] = 0.998, 0.002
    assert show_data.named(torch.tensor([8, 0])) == ["Bag", "T-shirt/top"]
    assert show_data.named(shares) == ["70% Coat\n30% Bag", "T-shirt/top", "Ankle boot"]


def test_flips_in_turns_are_drawn_in_turns() -> None:
    images = torch.randint(1, 256, (6, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    augment = Augmentation(flip=0.5, alternate=True, until=0.5)
    seen, figure = show_data.augmented(images, torch.arange(6), augment, seed=0)
    assert "flip=0.5, alternate=true, until=0.5" in seen
    canvas = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    there = ~np.isnan(canvas)
    rows = canvas[there.any(axis=1)][:, there.any(axis=0)][::4, ::4].reshape(4, 28, 6, 28)
    flipped = [[not np.array_equal(row[:, i], rows[0, :, i]) for i in range(6)] for row in rows[1:]]
    assert flipped[0] == flipped[2] == [not flip for flip in flipped[1]]
    assert 0 < sum(flipped[0]) < 6
