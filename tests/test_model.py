"""fmnist.load: images of every kind, and what is predicted for them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from PIL import Image

from fmnist.predict.inputs import split_batch, to_picture
from fmnist.predict.model import Model, load
from fmnist.runs.run import Run

PIXELS, LABELS = synthetic.make(12, seed=7, black=True)
PIXELS[:, 14, 14] = 255


@pytest.fixture
def model(finished_run: Path) -> Model:
    return load(finished_run)


def test_all_kinds_of_one_image_get_one_prediction(model: Model, tmp_path: Path) -> None:
    pixels = PIXELS[0]
    file = tmp_path / "a.png"
    Image.fromarray(pixels.numpy()).save(file)
    kinds: list[Any] = [
        *(file, str(file), Image.fromarray(pixels.numpy()), Image.fromarray(pixels.numpy()).convert("RGBA")),
        *(pixels, pixels.numpy(), pixels[None], pixels[..., None], pixels.expand(3, 28, 28), pixels.long()),
        *(pixels / 255, (pixels / 255).double().numpy()[None]),
    ]
    expected = model.predict(file)
    assert sum(expected.probabilities.values()) == pytest.approx(1)
    assert expected.confidence == max(expected.probabilities.values()) == expected.probabilities[expected.label]
    assert set(expected.probabilities) == set(model.classes)
    for image in kinds:
        assert model.predict(image).probabilities == pytest.approx(expected.probabilities)


def test_batches_get_a_list_in_their_order(model: Model, tmp_path: Path) -> None:
    for number, image in enumerate(PIXELS):
        Image.fromarray(image.numpy()).save(tmp_path / f"{number:02}.png")
    batches: list[Any] = [
        *(PIXELS, PIXELS[:, None], PIXELS[..., None].numpy(), PIXELS.float() / 255, list(PIXELS)),
        *(tmp_path, str(tmp_path / "*.png"), sorted(tmp_path.glob("*.png"))),
    ]
    expected = [model.predict(image).label for image in PIXELS]
    for batch in batches:
        predictions = model.predict(batch, batch_size=5)
        assert [prediction.label for prediction in predictions] == expected
    assert model.predict([]) == []


def test_images_of_the_dataset_are_classified_as_in_the_evaluation(model: Model) -> None:
    images, labels = synthetic.make(200, seed=1, black=True)
    images[:, 14, 14] = 255
    with torch.no_grad():
        logits = model.classifier.eval()(model.dataset.normalise(images[:, None]))
    predicted = [model.classes.index(prediction.label) for prediction in model.predict(images)]
    assert predicted == logits.argmax(1).tolist()
    assert len(labels) == 200


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((28, 28)) - 1, "image 0: floats from -1 to -1: must be from 0 to 1"),
        (np.full((28, 28), np.nan), "must be from 0 to 1"),
        (np.full((28, 28), 256), "integers from 256 to 256: must be from 0 to 255"),
        (np.zeros((2, 28, 28), np.uint8), "image 0: too little contrast"),
        (np.zeros((5,)), r"images of shape \(5,\): must have 2 to 4 dimensions"),
        (np.zeros((1, 5, 28, 28)), r"shape \(28, 28, 5\)|shape \(5, 28, 28\)"),
        ("nowhere.png", "images=nowhere.png: no such file"),
        ([[PIXELS, PIXELS]], "items of a sequence must be single images"),
    ],
)
def test_what_is_no_image_is_refused(model: Model, images: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        model.predict(images)


def test_other_objects_are_no_images() -> None:
    with pytest.raises(TypeError, match="images: must be paths, Pillow images, arrays or tensors, not int"):
        split_batch(3)
    assert to_picture(np.array([[True, False]])).getpixel((0, 0)) == 255


def test_a_model_is_loaded_from_any_path_of_a_run(finished_run: Path, tmp_path: Path) -> None:
    expected = load(finished_run).predict(PIXELS[0]).probabilities
    best = finished_run / "checkpoints" / "best.ckpt"
    shutil.copy(best, tmp_path / "model.ckpt")
    for path in (str(finished_run), Run(finished_run), finished_run / "config.yaml", best, tmp_path / "model.ckpt"):
        assert load(path).predict(PIXELS[0]).probabilities == expected
    for path in ("nowhere", "nowhere.ckpt"):
        with pytest.raises(ValueError, match="nowhere"):
            load(tmp_path / path)
