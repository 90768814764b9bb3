"""What comes with the files, for people who haven't got this project: preprocess.md and example.py."""

from collections.abc import Collection, Mapping

from fmnist.data.info import DatasetInfo
from fmnist.export.files import NAMES
from fmnist.export.graph import INPUT, OUTPUTS, Layout

LUMA = "0.299 red + 0.587 green + 0.114 blue"

EXAMPLE = '''"""Classify images with {package} and numpy: python example.py images.npy"""

import json
import sys
from pathlib import Path

import numpy as np
import {package}

folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
# uint8 (N, *input_shape), prepared as preprocess.md says; without a file one black image
images = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros((1, *config["input_shape"]), np.uint8)
{run}
{show}'''
RUN = {
    "onnx": f"""session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
probabilities, features = session.run({list(OUTPUTS)}, {{"{INPUT}": images}})""".replace("'", '"'),
    "torch_export": """network = torch.export.load(folder / "model.pt2").module()
probabilities, features = (output.numpy() for output in network(torch.from_numpy(images)))""",
}
SHOW = """for row in probabilities:
    print(f"{row.max():.4f} {config['classes'][row.argmax()]}")
"""
SHOW_MARKED = """similar = features @ np.load(folder / config["unfamiliar"]["features"]).T.astype(np.float32)
distances = 1 - np.sort(similar)[:, -config["unfamiliar"]["neighbours"] :].mean(axis=1)
for row, distance in zip(probabilities, distances, strict=True):
    mark = " (unlike the training images)" if distance > config["unfamiliar"]["threshold"] else ""
    print(f"{row.max():.4f} {config['classes'][row.argmax()]}{mark}")
"""
PACKAGES: Mapping[str, str] = {"onnx": "onnxruntime", "torch_export": "torch"}
"""What runs an example, by format. Weights alone, as in safetensors, need this project."""


def example_text(form: str, *, marked: bool) -> str:
    """Return a program that classifies images with the file of a format.

    Args:
        marked: whether it marks images unlike the training images.
    """
    return EXAMPLE.format(package=PACKAGES[form], run=RUN[form], show=SHOW_MARKED if marked else SHOW)


def example_of(names: Collection[str]) -> str | None:
    """Return the format whose example runs one of the files; None if none does."""
    return next((form for form in PACKAGES if NAMES[form] in names), None)


def preprocess_text(dataset: DatasetInfo, layout: Layout, input_shape: tuple[int, int, int]) -> str:
    """Return in words how to prepare a picture."""
    channels, height, width = dataset.image_shape
    axes = "(channels, rows, columns)" if layout == "nchw" else "(rows, columns, channels)"
    sides = ", ".join(map(str, input_shape))
    colours = "gray" if channels == 1 else "RGB" if channels == 3 else f"{channels} channels"
    steps = [*_steps(dataset), f"Make it an array of bytes (uint8), {axes} = ({sides}), with a batch axis before it."]
    listed = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return (
        f"# What to do with a picture\n\n"
        f"The file takes {colours} images of {height} rows and {width} columns, as bytes from 0 to 255:\n"
        f"`uint8 (N, {sides})`. Do not scale or normalise them: the file does that\n"
        f"itself, with the mean {_numbers(dataset.mean)} and the standard deviation {_numbers(dataset.std)}\n"
        "of pixels scaled to 0..1.\n\n"
        f"{listed}\n\n"
        "An image of the dataset itself needs only the last step. A picture that is prepared in another way gets a\n"
        "prediction, too, but not one that means anything.\n"
    )


def _steps(dataset: DatasetInfo) -> list[str]:
    channels, height, width = dataset.image_shape
    if dataset.fit == "item":
        box = f"{height - 2 * dataset.margin}x{width - 2 * dataset.margin}"
        border = f", which leaves {dataset.margin} black pixels at each side" if dataset.margin else ""
        repeated = f" Repeat the gray values in all {channels} channels." if channels > 1 else ""
        return [
            f"Take one item on a plain background. Make it gray: {LUMA}.{repeated}",
            "The item must be bright and the background black. Where the item is darker than its background, replace"
            " each value v by 255 - v.",
            "Subtract the background, so that it becomes 0; set everything that isn't the item to 0.",
            "Cut the picture to the item's bounding box.",
            f"Resize that, without a change of its aspect ratio, so that it just fits into {box} pixels{border}."
            " Use a filter that averages when it shrinks (Lanczos or area).",
            "Stretch the gray values, so that the brightest parts of the item have 255.",
            f"Put it in the middle of {height}x{width} black pixels.",
        ]
    fit = {
        "crop": f"Resize it, without a change of its aspect ratio, so that it covers {height}x{width} pixels, and cut"
        " off what is too long, the same at both ends.",
        "pad": f"Resize it, without a change of its aspect ratio, so that it just fits into {height}x{width} pixels,"
        " and fill the rest with black, the same at both ends.",
        "stretch": f"Resize it to {height}x{width} pixels; its aspect ratio may change.",
    }[dataset.fit]
    colour = f"Make it gray: {LUMA}." if channels == 1 else "Make it RGB."
    return [colour, f"{fit} Use a bicubic filter that averages when it shrinks."]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
