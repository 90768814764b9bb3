"""The facts of an export, as config.json and the metadata of each file hold them."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fmnist.evaluation.inspection import network_name
from fmnist.evaluation.unfamiliar import NEIGHBOURS, Detector
from fmnist.export.graph import INPUT, OUTPUTS, PixelsToProbabilities
from fmnist.runs.provenance import git_state


@dataclass(frozen=True)
class Published:
    """What is known about a dataset that others have published.

    Args:
        licence: its identifier in model hubs.
        hub_name: its name on huggingface.co.
    """

    licence: str
    hub_name: str


KNOWN = "training_features.npy"
"""The file of the features of some training images, (M, F), float16."""
UNKNOWN = "unknown"
PUBLISHED: Mapping[str, Published] = {"Fashion-MNIST": Published("mit", "zalando-datasets/fashion_mnist")}
"""By name. Source: https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE"""
IN_FILES = (
    *("name", "run", "fmnist", "torch", "licence", "classes", "image_shape", "layout", "input_shape", "temperature"),
    *("calibrated", "mean", "std"),
)
"""The facts that the files hold themselves."""


@dataclass(frozen=True)
class ExportedFile:
    """A file, what was measured with it, and how it differs from the network.

    Args:
        runtime: what runs it, or None.
        accuracy: on the test images, from 0 to 1; None where it wasn't measured.
        difference: the largest one of a probability; None where it wasn't compared.
        seconds: medians by number of images; empty where they weren't measured.
    """

    name: str
    runtime: str | None
    size: int
    sha256: str
    accuracy: float | None
    difference: float | None
    seconds: Mapping[int, float]


def describe(
    model: PixelsToProbabilities, node: Mapping[str, Any], run: str, *, calibrated: bool, detector: Detector | None
) -> dict[str, Any]:
    """Return what somebody needs to use an exported network, or to build it again.

    Args:
        model: what is exported.
        node: the network's class and arguments, from the config of the run.
        run: the name of the run folder.
        calibrated: whether the temperature was fitted.
        detector: of images unlike the training images; None where the run has none.
    """
    dataset = model.dataset
    known = PUBLISHED.get(dataset.name)
    pretrained = bool(node.get("pretrained"))  # by others, with other images under a licence of their own
    return {
        "name": f"{network_name(model.network)} on {dataset.name}",
        "run": run,
        "fmnist": own_version(),
        "torch": torch.__version__,
        "licence": UNKNOWN if known is None or pretrained else known.licence,
        "classes": list(dataset.classes),
        "image_shape": list(dataset.image_shape),
        "layout": model.layout,
        "input": INPUT,
        "input_shape": list(model.input_shape),
        "outputs": list(OUTPUTS),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "temperature": model.temperature,
        "calibrated": calibrated,
        "unfamiliar": detector and {"features": KNOWN, "neighbours": NEIGHBOURS, "threshold": detector.threshold},
        "dataset": dataset.to_dict(),
        "network": dict(node),
    }


def texts(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that the files hold, as texts by name."""
    facts = {name: description[name] for name in IN_FILES}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def own_version() -> str:
    """Return the version of this package, with the commit of a checkout."""
    folder = Path(__file__).parents[2]
    try:
        found = version("fmnist")
    except PackageNotFoundError:  # a checkout that isn't installed
        try:
            found = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        except (OSError, ValueError, KeyError):
            return UNKNOWN
    state = git_state(Path(__file__).parent)
    return f"{found} ({state['commit']}{'' if state['clean'] else ', changed'})" if state else str(found)
