"""scripts/show_data.py as a person uses it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from conftest import Done, RunScript
from matplotlib.figure import Figure
from test_wrong_input import assert_one_line

from fmnist.data import show_data
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import FASHION_MNIST
from fmnist.plotting.tiles import tiles

CLASSES = FASHION_MNIST.classes
NAMES = ["batch", "pixels", "class_counts", "class_means", "augmented"]


@pytest.fixture
def show(run_script: RunScript, data_root: Path) -> RunScript:
    """Runs the script on the made-up images."""
    small = ("data=idx", f"data.root={data_root}", "data.val_size=100", "images=10")

    def run(*words: str) -> Done:
        flags = [word for word in words if word.startswith("-")]
        return run_script("show_data", *flags, *small, *(word for word in words if word not in flags))

    return run


@pytest.fixture
def datamodule(data_root: Path) -> ImageDataModule:
    made = ImageDataModule(synthetic.dataset(data_root), Augmentation(), 10, val_size=100, seed=3)
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


def test_the_pictures_are_files_and_no_run_of_tensorboard(show: RunScript) -> None:
    done = show("index=7")
    assert (done.status, done.err) == (0, "")
    folder = folder_of(done)
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in NAMES}

    lines = done.out.splitlines()
    for split, count in (("train", "500"), ("val", "100"), ("test", "200")):
        assert any(line.split() == [split, count, "images"] for line in lines)
    for name in NAMES:
        assert sum(line.startswith(f"  {name}.png: ") for line in lines) == 1
    assert any("pixels.png: training image 7 " in line for line in lines)


def test_overrides_reach_the_pictures_and_a_sweep_leaves_a_folder_for_each_job(
    show: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Any, ...]] = []
    one = ("batch", "an image", tiles(torch.rand(1, 28, 28)))
    monkeypatch.setattr(show_data, "pictures", lambda *arguments: given.append(arguments) or iter([one]))
    done = show("-m", "seed=3,4", "index=499", "augment=flip")
    assert done.status == 0, done.err
    assert [(augment.shift, *rest) for _, _, augment, *rest in given] == [(0, 3, 10, 499), (0, 4, 10, 499)]
    assert {file.parent.name for file in folder_of(done).glob("*/batch.png")} == {"seed=3", "seed=4"}


@pytest.mark.parametrize(
    "override",
    ["index=500", "index=-1", "images=0", "augment.flip=2"],
)
def test_invalid_input_leaves_nothing(show: RunScript, override: str) -> None:
    assert_one_line(show(override), override.split("=")[0])


def test_a_failure_while_drawing_leaves_nothing(show: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(show_data, "pixel_values", full)
    assert_one_line(show(), "no space left")


def test_pictures_show_the_first_batch_and_the_image_of_the_index(datamodule: ImageDataModule) -> None:
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

    assert [len(panel.texts) for panel in drawn["class_counts"][1].axes] == [10] * 3
    figure = drawn["class_means"][1]
    assert titles(figure) == list(CLASSES)
    means = torch.stack([images[labels == label].float().mean(0)[0] for label in range(10)])
    shown = np.stack(images_of(figure))
    assert np.corrcoef(shown.flatten(), means.flatten())[0, 1] > 0.9999  # in a range of its own


@pytest.mark.parametrize(
    ("augment", "description"),
    [
        (Augmentation(flip=1.0), "(flip=1.0)"),
        (Augmentation(flip=0.5, alternate=True, until=0.5), "flip=0.5, alternate=true, until=0.5"),
    ],
)
def test_augmented_images_are_below_their_originals(augment: Augmentation, description: str) -> None:
    images = torch.randint(1, 256, (6, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found, figure = show_data.augmented(images, torch.arange(6), augment, 0, CLASSES)
    assert description in found
    assert titles(figure) == [f"{row}\n{name}" for row in ("original", *["augmented"] * 3) for name in CLASSES[:6]]
    originals, *rows = np.stack(images_of(figure)).reshape(4, 6, 28, 28)
    flipped = [(row == originals[..., ::-1]).all((1, 2)) for row in rows]
    if augment.alternate:
        assert 0 < flipped[0].sum() < 6
        assert flipped[0].tolist() == flipped[2].tolist() == (~flipped[1]).tolist()
    else:
        assert np.all(flipped)


def test_mixed_images_are_named_by_their_soft_labels() -> None:
    images = torch.stack([torch.zeros(1, 28, 28), torch.full((1, 28, 28), 255.0)]).to(torch.uint8)
    description, figure = show_data.augmented(images, torch.tensor([8, 4]), Augmentation(mixup=0.9), 0, CLASSES)
    assert "(mixup=0.9)" in description
    for title, image in list(zip(titles(figure), images_of(figure), strict=True))[2:]:
        names = [line.split(maxsplit=1) for line in title.split("\n")[1:]]
        shares = {name: int(share.rstrip("%")) / 100 for share, name in names}
        assert sum(shares.values()) == pytest.approx(1, abs=0.011)
        assert np.allclose(image, shares["Coat"], atol=0.01)  # which is white
