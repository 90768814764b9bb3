"""The model card: README.md with the metadata block that model hubs read."""

import html
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup
from torch import Tensor

from fmnist.config.keys import affects_result
from fmnist.config.overrides import key_of, program
from fmnist.data.info import DatasetInfo
from fmnist.evaluation.calibration import NOT_CALIBRATED
from fmnist.evaluation.interval import wilson
from fmnist.evaluation.robustness import Robustness, Scores
from fmnist.export.describe import PUBLISHED, ExportedFile
from fmnist.export.usage import example_of
from fmnist.plotting.terminal import printable

PATHS = {"data.root": "FOLDER", "data.exclude": "FILE"}
"""What is shown of keys that tell the folders of a machine."""
SHOWN = 100  # classes
PAIRS = 3
TASK = "image-classification"


@dataclass(frozen=True)
class Card:
    """What a model card is made of.

    Args:
        about: see `describe`.
        parameters: their number.
        record, metrics: run.json and metrics.json of the run, in which anything may be missing.
        robustness: of the checkpoint; None if it wasn't measured.
        files: the exported files.
        confusion: counts (K true, K predicted) of the test images; None where they weren't measured.
        notes: sentences about precision, temperature and comparison.
    """

    about: Mapping[str, Any]
    dataset: DatasetInfo
    parameters: int
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    robustness: Robustness | None
    files: Sequence[ExportedFile]
    confusion: Tensor | None
    notes: Sequence[str]

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return [file.name for file in self.files]


def model_card(card: Card) -> str:
    """Return the text of README.md.

    Raises:
        ValueError: if the hub's own reader doesn't find the metadata in it that were written.
    """
    from huggingface_hub import ModelCard

    data: Any = metadata(card)
    text = f"---\n{data.to_yaml()}\n---\n\n{body(card)}\n"
    found: Any = ModelCard(text).data
    if found.to_dict() != data.to_dict():
        raise ValueError("the metadata of the model card can't be read back")
    return text


def metadata(card: Card) -> Any:
    """Return the `ModelCardData` of huggingface_hub."""
    from huggingface_hub import EvalResult, ModelCardData

    published = PUBLISHED.get(card.dataset.name)
    results = None
    if card.confusion is not None:
        results = [
            EvalResult(
                task_type=TASK,
                dataset_type=published.hub_name if published else card.dataset.name,
                dataset_name=card.dataset.name,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=int(card.confusion.diagonal().sum()) / int(card.confusion.sum()),
            )
        ]
    return ModelCardData(
        license=card.about["licence"],
        library_name="onnx" if "model.onnx" in card.names else "pytorch",
        pipeline_tag=TASK,
        tags=[TASK, "fmnist", *sorted({name.rpartition(".")[2] for name in card.names})],
        datasets=[published.hub_name] if published else None,
        metrics=["accuracy"],
        model_name=card.about["name"],
        eval_results=results,
    )


def body(card: Card) -> str:
    """Return the card below its metadata, as Markdown."""
    channels, height, width = card.dataset.image_shape
    environment = jinja2.Environment(  # nosec B701 (it is Markdown, and `finalize` escapes)
        loader=jinja2.PackageLoader("fmnist.export", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )
    environment.filters["code"] = code
    values = {
        "kind": {1: "gray ", 3: "RGB "}.get(channels, ""),
        "height": height,
        "width": width,
        "classes": card.dataset.classes,
        "dataset": card.dataset.name,
        "published": PUBLISHED.get(card.dataset.name),
        "example": example_of(card.names),
        "hashes": mapping(card.record.get("dataset")),
        "command": command(card.record.get("overrides")),
        "facts": facts(card.record, card.metrics),
        "images": 0 if card.confusion is None else int(card.confusion.sum()),
        "rows": [] if card.confusion is None else class_rows(card.confusion, card.dataset.classes),
        "confused": [] if card.confusion is None else list(pairs(card.confusion, card.dataset.classes)),
        "recorded": recorded_accuracies(card.metrics),
        "calibration": list(calibration_rows(card.metrics.get("calibration"))),
        "robustness_rows": [] if card.robustness is None else robustness_rows(card.robustness),
        "program": program,
        "NOT_CALIBRATED": NOT_CALIBRATED,
        "percent": lambda value: f"{value:.2%}",
        "SHOWN": SHOWN,
    }
    return environment.get_template("card.md").render(vars(card) | values)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping as it is, and nothing in place of anything else."""
    return value if isinstance(value, dict) else {}


def command(overrides: Any) -> str | None:
    """Return the command of a training without what makes no difference to its result, or tells folders."""
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        return None
    shown = []
    for override in overrides:
        key = key_of(override)
        if key in PATHS:
            shown.append(f"{key}={PATHS[key]}")
        elif key == "seed" or affects_result(key):
            shown.append(override)
    return shlex.join(["python", "scripts/train.py", *shown])


def facts(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known about a training, by name."""
    hardware, resumed = mapping(record.get("hardware")), record.get("resumed")
    gpus = hardware.get("gpus")
    found = {
        "seed": record.get("seed"),
        "precision": record.get("precision"),
        "epochs": metrics.get("epochs"),
        "seconds": metrics.get("train/seconds"),
        "times resumed": len(resumed) if isinstance(resumed, list) else None,
        "processor": hardware.get("cpu"),
        "GPUs": ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else None,
        "commit": mapping(record.get("git")).get("commit"),
    }
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def class_rows(confusion: Tensor, classes: Sequence[str]) -> list[tuple[str, int, int, float, float]]:
    """Return name, correct, total, and the 95 % interval of the accuracy of each class and of all images.

    Of many classes they are those of the least accurate ones.
    """
    correct, total = confusion.diagonal(), confusion.sum(dim=1)
    counts = list(zip(classes, correct.tolist(), total.tolist(), strict=True))
    if len(counts) > SHOWN:
        counts = sorted(counts, key=lambda row: row[1] / row[2] if row[2] else 2)[:SHOWN]
    counts.append(("all", int(correct.sum()), int(total.sum())))
    return [(name, right, images, *wilson(right, images)) for name, right, images in counts]


def pairs(confusion: Tensor, classes: Sequence[str]) -> Iterator[tuple[int, int, str, str]]:
    """Yield count, images of the true class, true class and predicted class of the most frequent mistakes."""
    wrong = confusion.clone().fill_diagonal_(0)
    for place in wrong.flatten().argsort(descending=True, stable=True)[:PAIRS].tolist():
        true, predicted = divmod(place, len(classes))
        if count := int(wrong[true, predicted]):
            yield count, int(confusion[true].sum()), classes[true], classes[predicted]


def recorded_accuracies(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracy of each class and of all test images that a run has recorded; nothing if it hasn't."""
    accuracy = metrics.get("test/accuracy")
    if not isinstance(accuracy, float):
        return {}
    known = mapping(metrics.get("test/accuracy_per_class"))
    classes = {name: value for name, value in list(known.items())[:SHOWN] if isinstance(value, float)}
    return {**classes, "all": accuracy}


def calibration_rows(values: Any) -> Iterator[tuple[str, str, float, float]]:
    """Yield split, "without" or "with" the temperature, error and loss, as a run has recorded them."""
    for split in ("val", "test"):
        measured = mapping(mapping(values).get(split))
        for which, suffix in (("without", ""), ("with", "_calibrated")):
            error, loss = measured.get(f"error{suffix}"), measured.get(f"loss{suffix}")
            if isinstance(error, float) and isinstance(loss, float):
                yield split, which, error, loss


def robustness_rows(robustness: Robustness) -> list[tuple[str, Scores]]:
    """Return names and scores: of the clean images, of each corruption as means over its strengths, and their mean."""
    corrupted = [(name, robustness.mean(name)) for name in robustness.corruptions]
    return [("clean", robustness.clean), *corrupted, ("mean of corruptions", robustness.mean())]


def plain(value: object) -> str:
    """Return a text that Markdown shows as it is: names may come from a stranger."""
    text = html.escape(printable(str(value)), quote=False)
    return "".join(f"\\{letter}" if letter in r"\`*[]|#" else letter for letter in text)


def code(value: object) -> Markup:
    """Return a text that stays within backquotes, a table's cell and a line."""
    text = printable(str(value)).replace("`", "'").replace("|", "/")
    return Markup(text)  # nosec B704 (Markdown shows it as code)
