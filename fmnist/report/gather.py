"""The report of a run: gathered from its folder, its network and its images."""

import copy
import csv
import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from torch import Tensor, nn

from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.data.info import IMAGE_SHAPE
from fmnist.evaluation import inspection
from fmnist.evaluation.measure import Evaluation
from fmnist.plotting.charts import reliability_chart
from fmnist.report.page import Findings, report_page
from fmnist.report.pictures import sample
from fmnist.report.weaknesses import weaknesses
from fmnist.runs import untrusted as trust
from fmnist.runs.files import atomic_write
from fmnist.runs.run import Run
from fmnist.training.classifier import Classifier
from fmnist.training.metrics import calibration

log = logging.getLogger(__name__)

SPLITS = {"val": "validation", "test": "test"}
EXPLAINED = 6  # right predictions, and as many wrong ones, whose reasons are looked for
Curves = dict[str, list[tuple[float, float]]]
T = TypeVar("T")


def write_report(
    run: Run, classifier: Classifier, datamodule: FashionMNISTDataModule, split: str, result: Evaluation
) -> Path:
    """Writes the run's report and returns its file.

    What the folder doesn't hold, as after an interruption, is left out.

    Args:
        run: where it is written, and where the course of the training is read.
        classifier: with the weights that were measured.
        datamodule: set up.
        split: "val" or "test".
        result: what `fmnist.evaluation.measure.measure` found on that split.
    """
    network = copy.deepcopy(classifier.network).float().cpu()
    atomic_write(run.report_file, report_page(gather(run, network, datamodule, split, result)))
    return run.report_file


def gather(
    run: Run, network: nn.Module, datamodule: FashionMNISTDataModule, split: str, result: Evaluation
) -> Findings:
    """Everything that the report of a network, in single precision on the CPU, shows."""
    logits = result.logits
    images, labels = (values[: len(logits)] for values in datamodule.splits[split])  # limit_test_batches takes fewer
    probabilities, predicted = logits.softmax(dim=1), logits.argmax(dim=1)
    confidence = probabilities.gather(1, predicted[:, None])[:, 0]
    right = predicted == labels
    calibrated = calibration(probabilities, labels) if confidence.isfinite().all() else None
    explained = [*sample(right, EXPLAINED), *sample(~right, EXPLAINED)]
    method, attribution = explain(
        network,
        datamodule.dataset.normalise(images[explained]),
        predicted=predicted[explained],
        labels=labels[explained],
    )
    curves = read_curves(run.history_file)
    config = if_readable(run.config_file.read_text) or ""
    record = if_readable(run.load_record) or {}
    choices = if_readable(lambda: plain_values(config)) or {}
    return Findings(
        name=choices.get("name", run.folder.name),
        facts=facts(network, curves, record, chosen_by(run, choices, bool(datamodule.val_size))),
        split=SPLITS[split],
        split_chose=split == "val" and run.best_checkpoint.is_file(),
        loss=result.loss,
        confusion=result.confusion,
        images=images[:, 0],
        labels=labels,
        predicted=predicted,
        confidence=confidence,
        weaknesses=weaknesses(result.confusion, confidence, right, calibrated.error if calibrated else None, curves),
        curves=curves,
        reliability=reliability_chart(**vars(calibrated)) if calibrated else None,
        layers=[dataclasses.astuple(layer) for layer in inspection.layers(network, IMAGE_SHAPE)],
        parameters=inspection.count_parameters(network),
        filters=inspection.first_filters(network, IMAGE_SHAPE),
        activations=inspection.activation_maps(network, datamodule.dataset.normalise(images[:1])[0]),
        method=method,
        explained=explained,
        attribution=attribution,
        config=config,
        record=record,
    )


def explain(
    network: nn.Module, images: Tensor, *, predicted: Tensor, labels: Tensor
) -> tuple[str, tuple[Tensor, Tensor]]:
    """The method, and what matters for the predicted and for the true class, both (N, H, W).

    Args:
        network: gives logits (N, K).
        images: normalised, (N, C, H, W).
        predicted: classes (N).
        labels: true classes (N).
    """
    method, for_predicted = inspection.attribution(network, images, predicted)
    _, for_true = inspection.attribution(network, images, labels)
    return method, (for_predicted, for_true)


def facts(network: nn.Module, curves: Curves, record: Mapping[str, Any], checkpoint: str) -> dict[str, str]:
    """What is to be known about a training at a glance; what isn't known is left out."""
    hardware = record.get("hardware")
    hardware = hardware if isinstance(hardware, dict) else {}
    gpus = hardware.get("gpus")
    machine = [hardware.get("cpu"), *(gpus if isinstance(gpus, list) and gpus else ["no GPU"])]
    found = {
        "network": f"{type(network).__name__}, {inspection.count_parameters(network):,} parameters",
        "checkpoint": checkpoint,
    }
    if record.get("status", "finished") != "finished":
        found["status"] = str(record["status"])
    if curves.get("seconds", [(0, 0)])[-1][0] > 0:
        epochs, seconds = curves["seconds"][-1]
        found["training"] = f"{epochs:g} {'epoch' if epochs == 1 else 'epochs'} in {duration(seconds)}, with validation"
    if isinstance(start := record.get("start"), str):
        found["started"] = start.replace("T", " ")
    if hardware:
        found["machine"] = ", ".join(map(str, filter(None, machine)))
    if isinstance(precision := record.get("precision"), str):
        found["precision"] = precision
    return found


def chosen_by(run: Run, choices: Mapping[str, str], validated: bool) -> str:
    """Which checkpoint the network is of, and why that one."""
    if run.best_checkpoint.is_file():
        return f"{run.best_checkpoint.name}, chosen by {choices.get('monitor', 'the monitored metric')}"
    if run.last_checkpoint.is_file():
        reason = "the training ended before the first validation" if validated else "there are no validation images"
        return f"{run.last_checkpoint.name}, as {reason}"
    return "none: the network as it was when the training ended"


def duration(seconds: float) -> str:
    """In minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plain_values(config: str) -> dict[str, str]:
    """The texts on the first level of a config in YAML.

    Raises:
        ValueError: if it isn't one.
    """
    try:
        trust.check_yaml(config)
        content = yaml.safe_load(config)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"the config can't be read: {' '.join(str(error).split())}") from error
    values = content.items() if isinstance(content, dict) else ()
    return {str(key): value for key, value in values if isinstance(value, str)}


def read_curves(file: Path) -> Curves:
    """The finite numbers (epoch, value) of each column of a run's table."""
    curves: Curves = defaultdict(list)
    for row in if_readable(lambda: list(csv.DictReader(file.read_text().splitlines()))) or []:
        epoch = number(row.get("epoch"))
        for name, text in row.items():
            value = number(text)
            if epoch is not None and value is not None:
                curves[name].append((epoch, value))
    return dict(curves)


def number(text: Any) -> float | None:
    """A finite number; None for anything else."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def if_readable(read: Callable[[], T]) -> T | None:
    """What is read; None, and a line in the log, where it is damaged."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        log.warning("the report goes without something: %s", error)
        return None
