"""The report of a run: one HTML file that loads nothing."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy

from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import DatasetInfo
from fmnist.evaluation import inspection
from fmnist.evaluation.calibration import NOT_CALIBRATED, Calibrator, calibration_metrics, set_metrics
from fmnist.evaluation.interval import wilson
from fmnist.evaluation.measure import Evaluation
from fmnist.evaluation.robustness import read_robustness
from fmnist.plotting.charts import reliability_chart
from fmnist.plotting.frame import percent, render, svg
from fmnist.plotting.tiles import MOST_MAPS, data_url, map_grid, overlay
from fmnist.report.curves import Curves, charts, read_curves
from fmnist.report.examples import Example, Picture, Predictions, sample
from fmnist.report.run_files import REPORT, checkpoint_fact, entries, facts
from fmnist.report.weaknesses import confused_pairs, weaknesses
from fmnist.runs.files import atomic_write, if_readable
from fmnist.runs.run import Run
from fmnist.training.classifier import Classifier
from fmnist.training.metric_names import MANY_CLASSES, TOP5_CLASSES
from fmnist.training.metrics import calibration

SPLITS = {"val": "validation", "test": "test"}
PAIRS, IMAGES_OF_A_PAIR = 5, 6
MISTAKES = 16
SAMPLES = 8  # right predictions, and as many wrong ones
MATRIX_CLASSES = 20  # of many
COVERAGES = (0.9, 0.95, 0.99)  # of prediction sets
SET_CLASSES, LEAST_COVERED = 20, 10  # classes with prediction sets: of up to 20 all, of more the least covered
GRAD_CAMS = 6  # right predictions, and as many wrong ones
RELIABILITY_SIZE = (4.8, 4.4)  # inches


def write_report(
    run: Run,
    classifier: Classifier,
    datamodule: ImageDataModule,
    result: Evaluation,
    calibrator: Calibrator | None = None,
) -> Path:
    """Write the report of a measured network into the run's folder, and return its file.

    What the folder lacks of curves and record, as after an interruption, is left out. The data module is set up.
    """
    network = copy.deepcopy(classifier.network).float().cpu()
    dataset, curves = datamodule.dataset, read_curves(run.history_file)
    probabilities = calibrator.probabilities(result.logits) if calibrator else result.logits.softmax(dim=1)
    predicted, confidence = result.logits.argmax(dim=1), probabilities.amax(dim=1)
    # Fewer than the split has, with limit_test_batches:
    images, labels = (part[: len(predicted)] for part in datamodule.splits[result.split])
    predictions = Predictions(images, labels, predicted, confidence, dataset.classes)
    page = render(
        "report/page.html",
        dataset=dataset,
        split=SPLITS[result.split],
        chosen_on_split=result.split == "val" and run.best_checkpoint.is_file(),
        loss=result.loss,
        top_accuracies=top_accuracies(result.logits, labels),
        weaknesses=weaknesses(
            result.confusion, confidence, predictions.right, curves, dataset.classes, calibrated=calibrator is not None
        ),
        untrained=next((value for epoch, value in curves.get("val/accuracy", ()) if epoch == 0), None),
        pruned=datamodule.prune,
        reliability=reliability(probabilities, labels),
        calibration=calibrator and calibration_values(calibrator, result.logits, labels, dataset.classes),
        samples=predictions.examples(
            sorted([*sample(predictions.right, SAMPLES), *sample(~predictions.right, SAMPLES)])
        ),
        mistakes=predictions.examples(predictions.most_confident(~predictions.right, MISTAKES)),
        pairs=pairs(result.confusion, predictions),
        not_calibrated=NOT_CALIBRATED,
        robustness=if_readable(lambda: read_robustness(run, run.chosen_checkpoint), REPORT),
        robustness_command=run.command("robustness", "run"),
        **run_values(run, classifier, curves, validated=bool(datamodule.val_size)),
        **counts(result.confusion, dataset.classes),
        **network_values(network, dataset, predictions),
    )
    atomic_write(run.report_file, page)
    return run.report_file


def run_values(run: Run, classifier: Classifier, curves: Curves, validated: bool) -> dict[str, Any]:
    """Return name, facts, curves, config and record of a run."""
    config, network = run.load_config(), classifier.network
    ends = (OmegaConf.select(config, f"trainer.{key}") for key in ("max_epochs", "max_steps"))
    max_epochs, max_steps = (end if isinstance(end, int) else -1 for end in ends)
    record = if_readable(run.load_record, REPORT) or {}
    parameters = inspection.count_parameters(network)
    return {
        "name": "/".join([*([str(config["name"])] if config.get("name") else []), run.folder.name]),
        "facts": {
            "network": f"{inspection.network_name(network)}, {parameters:,} parameters",
            "checkpoint": checkpoint_fact(run, str(config.get("monitor")), validated),
            **facts(curves, record),
        },
        "parameters": parameters,
        "charts": charts(curves, classifier, max_epochs, max_steps),
        "config": run.config_file.read_text(),
        "record": list(entries(record)),
    }


def top_accuracies(logits: Tensor, labels: Tensor) -> dict[int, float]:
    """Return, by k, the fraction of the images whose class is among the k most likely ones.

    They are of k = 2 and 3, and of k = 5 from 20 classes on, where K is larger.
    """
    classes = logits.shape[1]
    shown = [k for k in (2, 3, *([5] if classes >= TOP5_CLASSES else [])) if k < classes]
    return {k: multiclass_accuracy(logits, labels, classes, average="micro", top_k=k).item() for k in shown}


def counts(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, its 95 % interval, a row of metrics for each class, and the matrix (K true, K predicted).

    Of many classes the rows are the least accurate ones, and the matrix has those with the most mistakes.
    """
    correct, images, predicted = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    scores = (correct / images, correct / predicted, 2 * correct / (images + predicted))  # NaN where there are none
    right, total = int(correct.sum()), int(images.sum())
    rows = list(zip(classes, *(column.tolist() for column in (correct, images, *scores)), strict=True))
    shown = list(range(len(classes)))
    if len(classes) > MANY_CLASSES:
        rows = sorted(rows, key=lambda row: row[3] if row[2] else 2)[:MANY_CLASSES]
        mistakes = images + predicted - 2 * correct
        shown = sorted(mistakes.argsort(descending=True, stable=True)[:MATRIX_CLASSES].tolist())
    return {
        "correct": right,
        "total": total,
        "interval": wilson(right, total),
        "rows": rows,
        "matrix_classes": [classes[k] for k in shown],
        "confusion": confusion[shown][:, shown].tolist(),
        "shares": (confusion / images[:, None].clamp(min=1))[shown][:, shown].tolist(),
    }


def reliability(probabilities: Tensor, labels: Tensor) -> Markup | None:
    """Return the calibration chart; None where the network has diverged."""
    if not probabilities.isfinite().all():
        return None
    return svg(reliability_chart(**vars(calibration(probabilities, labels))), RELIABILITY_SIZE)


def calibration_values(
    calibrator: Calibrator, logits: Tensor, labels: Tensor, classes: Sequence[str]
) -> dict[str, Any] | None:
    """Return what the page says on the calibration; None where the network has diverged."""
    if not logits.isfinite().all():
        return None
    return {
        "temperature": calibrator.temperature,
        **calibration_metrics(calibrator, logits, labels),
        "sets": (sets := [set_metrics(calibrator, logits, labels, coverage, classes) for coverage in COVERAGES]),
        "set_rows": set_rows(sets),
    }


def set_rows(sets: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each class, the least covered one first: its name, and coverage and mean size of the sets.

    Of many classes they are the least covered ones.

    Args:
        sets: what `set_metrics` returns, for one coverage or several.
    """
    columns = zip(*(each["classes"] for each in sets), strict=True)
    ordered = sorted(columns, key=lambda cells: sum(coverage for _, coverage, _ in cells))
    shown = ordered if len(ordered) <= SET_CLASSES else ordered[:LEAST_COVERED]
    return [
        [cells[0][0], *(text for _, coverage, size in cells for text in (percent(coverage), f"{size:.2f}"))]
        for cells in shown
    ]


def pairs(confusion: Tensor, predictions: Predictions) -> list[tuple[str, str, int, int, list[Example]]]:
    """Return the most confused pairs: true and predicted class, mistakes, images, and the most confident mistakes."""
    found = []
    for true, guess, count in confused_pairs(confusion, PAIRS):
        these = (predictions.labels == true) & (predictions.predicted == guess)
        shown = predictions.examples(predictions.most_confident(these, IMAGES_OF_A_PAIR))
        names = predictions.classes[true], predictions.classes[guess]
        found.append((*names, count, int(confusion[true].sum()), shown))
    return found


def network_values(network: nn.Module, dataset: DatasetInfo, predictions: Predictions) -> dict[str, Any]:
    """Return the layers of a network, in single precision on the CPU, its filters, activation maps and Grad-CAM."""
    filters = inspection.first_filters(network, dataset.image_shape)
    activations = inspection.activation_maps(network, dataset.normalise(predictions.images[:1])[0])
    maps = activations if filters is None else {"first layer": filters, **activations}
    method, explained = grad_cam(network, dataset, predictions)
    return {
        "layers": inspection.layers(network, dataset.image_shape),
        "maps": [(name, len(each), Picture(data_url(map_grid(each)), f"{name}: maps")) for name, each in maps.items()],
        "most_maps": MOST_MAPS,
        "first": predictions.examples([0])[0] if activations else None,
        "method": method,
        "explained": explained,
    }


def grad_cam(network: nn.Module, dataset: DatasetInfo, predictions: Predictions) -> tuple[str, list[Example]]:
    """Return the method, and examples with what speaks for their predicted and for their true class."""
    chosen = [*sample(predictions.right, GRAD_CAMS), *sample(~predictions.right, GRAD_CAMS)]
    images = predictions.images[chosen]
    maps: list[Mapping[str, Tensor]] = [{} for _ in chosen]
    for labels in (predictions.predicted[chosen], predictions.labels[chosen]):
        method, heat = inspection.attribution(network, dataset.normalise(images), labels)
        named = [dataset.classes[label] for label in labels.tolist()]
        maps = [{**found, name: each} for found, name, each in zip(maps, named, heat, strict=True)]
    examples = []
    for example, image, found in zip(predictions.examples(chosen), images, maps, strict=True):
        overlays = [
            Picture(data_url(overlay(image, heat)), f"what speaks for {name}", name if heat.any() else f"{name}: none")
            for name, heat in found.items()
        ]
        pictures = [*example.pictures, *overlays]
        examples.append(Example(pictures, example.predicted, example.true, example.confidence))
    return method, examples
