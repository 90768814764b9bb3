"""scripts/show_data.py as a person uses it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Done, RunScript
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_wrong_input import assert_one_line

from fmnist.data import show_data
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.data.info import FASHION_MNIST
from fmnist.plotting.tiles import tiles

CLASSES = FASHION_MNIST.classes
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


def titles(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts[1:]]


def images_of(figure: Figure, size: int = 28) -> list[np.ndarray]:
    """The images of tiles, from 0 to 1, each below the middle of its title."""
    canvas = figure.axes[0].images[0].get_array()[..., 0]
    corners = [
        (round(y) + 3, round(x) - 2 * size) for x, y in (text.get_position() for text in figure.axes[0].texts[1:])
    ]
    return [canvas[y : y + 4 * size : 4, x : x + 4 * size : 4] for y, x in corners]


def test_the_pictures_are_files_and_in_tensorboard(show: RunScript) -> None:
    done = show("index=7")
    assert (done.status, done.err) == (0, "")
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
        encoded = io.BytesIO(shown.Images(name)[0].encoded_image_string)
        with Image.open(encoded) as logged, Image.open(folder / f"{name}.png") as file:
            assert np.array_equal(np.asarray(logged), np.asarray(file.convert("RGB")))


def test_overrides_reach_the_pictures(show: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(show_data, "pictures", lambda *arguments: asked.append(arguments) or iter(()))
    for word in ("seed=3", "index=499", "images=20", "augment=flip", "data.val_size=0"):
        assert show(word).status == 0
    told = [(len(splits["train"][0]), augment.shift, *rest) for splits, _, augment, *rest in asked]
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
    "override",
    ["index=500", "index=-1", "index=first", "images=0", "images=1000", "seed=-1", "augment.flip=2", "image=3"],
)
def test_invalid_input_leaves_nothing(show: RunScript, override: str) -> None:
    assert_one_line(show(override), override.split("=")[0])


def test_a_failure_while_drawing_leaves_nothing(show: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(show_data, "class_counts_chart", full)
    assert_one_line(show(), "no space left")


def test_pictures_show_the_first_batch_and_the_image_of_the_index(datamodule: FashionMNISTDataModule) -> None:
    drawn = {
        name: (description, figure)
        for name, description, figure in show_data.pictures(
            datamodule.splits, datamodule.dataset, datamodule.augment, seed=3, count=10, index=499
        )
    }
    assert list(drawn) == NAMES
    batch, batch_labels = next(iter(datamodule.train_dataloader()))  # of a training with this seed
    description, figure = drawn["batch"]
    assert "10 training images" in description
    assert titles(figure) == [CLASSES[label] for label in batch_labels.tolist()]
    assert np.allclose(np.stack(images_of(figure)) * 255, batch[:, 0])

    images, labels = datamodule.splits["train"]
    description, figure = drawn["pixels"]
    assert "training image 499" in description
    assert CLASSES[labels[499]] in description
    assert [int(text.get_text()) for text in figure.axes[0].texts] == images[499].flatten().tolist()

    panels = drawn["class_counts"][1].axes
    sizes = ["train: 500 images", "val: 100 images", "test: 200 images"]
    assert [panel.get_title(loc="left") for panel in panels] == sizes
    assert [text.get_text() for text in panels[2].texts] == ["20"] * 10
    assert titles(drawn["class_means"][1]) == list(CLASSES)


def test_class_means_are_the_means_of_the_classes() -> None:
    images = torch.randint(0, 256, (40, 1, 5, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(40) % 9  # none of class 9
    means = show_data.class_means(images, labels, 10)
    assert means.shape == (10, 1, 5, 6)
    for label in range(9):
        assert np.allclose(means[label], images.numpy()[labels.numpy() == label].mean(axis=0))
    assert means[9].isnan().all()


def random_images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 1, 28, 28), generator=generator).to(torch.uint8)


def test_augmented_images_are_below_their_originals() -> None:
    labels = torch.tensor([8, 4])
    description, figure = show_data.augmented(random_images(2), labels, Augmentation(flip=1.0), 0, CLASSES)
    assert "(flip=1.0)" in description
    assert titles(figure) == ["original\nBag", "original\nCoat", *("augmented\nBag", "augmented\nCoat") * 3]
    originals, *flipped = np.stack(images_of(figure)).reshape(4, 2, 28, 28)
    assert all(np.array_equal(row, originals[..., ::-1]) for row in flipped)


def test_mixed_images_are_named_by_their_soft_labels() -> None:
    images = torch.stack([torch.zeros(1, 28, 28), torch.full((1, 28, 28), 255.0)]).to(torch.uint8)
    description, figure = show_data.augmented(images, torch.tensor([8, 4]), Augmentation(mixup=0.9), 0, CLASSES)
    assert "(mixup=0.9)" in description
    for title, image in list(zip(titles(figure), images_of(figure), strict=True))[2:]:
        names = [line.split(maxsplit=1) for line in title.split("\n")[1:]]
        shares = {name: int(share.rstrip("%")) / 100 for share, name in names}
        assert sum(shares.values()) == pytest.approx(1, abs=0.011)
        assert np.allclose(image, shares["Coat"], atol=0.01)  # which is white


def test_names_of_labels_and_of_soft_labels() -> None:
    shares = torch.zeros(3, 10)
    shares[0, 8], shares[0, 4] = 0.304, 0.696
    shares[1, 0] = 1.0
    shares[2, 9], shares[2, 1] = 0.998, 0.002
    assert show_data.names(torch.tensor([8, 0]), CLASSES) == ["Bag", "T-shirt/top"]
    assert show_data.names(shares, CLASSES) == ["70% Coat\n30% Bag", "T-shirt/top", "Ankle boot"]


def test_alternating_flips_alternate() -> None:
    augment = Augmentation(flip=0.5, alternate=True, until=0.5)
    description, figure = show_data.augmented(random_images(6), torch.arange(6), augment, 0, CLASSES)
    assert "flip=0.5, alternate=true, until=0.5" in description
    originals, *rows = np.stack(images_of(figure)).reshape(4, 6, 28, 28)
    flipped = [
        [not np.array_equal(image, original) for image, original in zip(row, originals, strict=True)] for row in rows
    ]
    assert flipped[0] == flipped[2] == [not flip for flip in flipped[1]]
    assert 0 < sum(flipped[0]) < 6
