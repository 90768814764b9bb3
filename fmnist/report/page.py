"""Everything about a run on one page that needs nothing but itself."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from fmnist.data.info import CLASSES
from fmnist.plotting.charts import curves_chart
from fmnist.plotting.frame import render, svg
from fmnist.report.pictures import MOST_MAPS, Example, Picture, examples, mosaic, sample, surest
from fmnist.report.weaknesses import confused_pairs

Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations
PAIRS, IMAGES_OF_A_PAIR = 5, 6
USER_ERRORS = 16
SAMPLE = 24
CURVES_SIZE, RELIABILITY_SIZE = (4.6, 2.8), (4.8, 4.4)  # inches, small, so that text can be read on a phone
LINE_SIZE = (100, 20)  # width and height of a small curve in a table, in its own units


@dataclass(frozen=True)
class Findings:
    """What a report is made of, as tensors and plain values."""

    name: str
    facts: Mapping[str, str]
    split: str
    """The images' name in a sentence: "test" or "validation"."""
    split_chose: bool
    """Whether the checkpoint was chosen on these images."""
    loss: float
    confusion: Tensor
    """Counts (K true, K predicted)."""
    images: Tensor
    """uint8 (N, H, W)."""
    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    """Probability of the predicted class (N)."""
    weaknesses: Sequence[str]
    curves: Mapping[str, Sequence[tuple[float, float]]]
    """(epoch, value) of each column of the run's table."""
    reliability: Figure | None
    layers: Sequence[tuple[str, str, tuple[int, ...], int]]
    """Name, kind, output shape and parameters."""
    parameters: int
    filters: Tensor | None
    """(F, H, W)."""
    activations: Mapping[str, Tensor]
    """Maps (F, H, W) of the first image, by layer."""
    method: str
    """How the attribution was found."""
    explained: Sequence[int]
    """Which of the N images have an attribution."""
    attribution: tuple[Tensor, Tensor]
    """For the predicted and for the true class of each of them, both (M, H, W), from 0 to 1."""
    config: str
    record: Mapping[str, Any]


def report_page(findings: Findings) -> str:
    """The report as HTML."""
    right = findings.labels == findings.predicted
    return render(
        "report/page.html",
        run=findings,
        classes=CLASSES,
        line_size=LINE_SIZE,
        most_maps=MOST_MAPS,
        correct=int(findings.confusion.trace()),
        total=int(findings.confusion.sum()),
        interval=wilson_interval(int(findings.confusion.trace()), int(findings.confusion.sum())),
        charts=_charts(findings.curves),
        untrained=next((value for epoch, value in findings.curves.get("val/accuracy", ()) if epoch == 0), None),
        rows=class_rows(findings.confusion, findings.curves),
        shares=(findings.confusion / findings.confusion.sum(dim=1, keepdim=True).clamp(min=1)).tolist(),
        counts=findings.confusion.tolist(),
        pairs=_pairs(findings),
        mistakes=_examples(findings, surest(~right, findings.confidence, USER_ERRORS)),
        sample=_examples(findings, sample(torch.ones_like(right), SAMPLE)),
        reliability=svg(findings.reliability, RELIABILITY_SIZE) if findings.reliability else None,
        filters=_mosaic("first layer", findings.filters) if findings.filters is not None else None,
        activations=[_mosaic(name, maps) for name, maps in findings.activations.items()],
        first=_examples(findings, [0])[0],
        attribution=_examples(findings, findings.explained, findings.attribution),
        record=list(entries(findings.record)),
    )


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Between what the accuracy on more such images lies, with 95 % confidence.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927, as in
    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval
    """
    share, spread = right / total, Z**2 / total
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


@dataclass(frozen=True)
class ClassRow:
    """How good the predictions of one class are; None where there is nothing to divide by."""

    name: str
    correct: int
    total: int
    recall: float | None
    precision: float | None
    f1: float | None
    line: tuple[str, float, float] | None
    """Its validation accuracy from epoch 1 on: the points of an SVG polyline, the first value and the last."""


def class_rows(confusion: Tensor, curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[ClassRow]:
    """A row for each class.

    Args:
        confusion: counts (K true, K predicted).
        curves: by the names of `fmnist.training.metric_names.metric_names`.
    """
    lines = [curves.get(f"val/accuracy_per_class/{name}", ()) for name in CLASSES]
    low = min((value for line in lines for epoch, value in line if epoch > 0), default=0)
    rows = []
    for index, name in enumerate(CLASSES):
        correct, total = int(confusion[index, index]), int(confusion[index].sum())
        named = int(confusion[:, index].sum())
        scores = (_ratio(correct, total), _ratio(correct, named), _ratio(2 * correct, total + named))
        rows.append(ClassRow(name, correct, total, *scores, _polyline(lines[index], low)))
    return rows


def entries(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """What a record holds, level by level, as names and texts; a command is put together as a shell would read it."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from entries(value, f"{name}: {key}" if name else str(key))
    elif isinstance(values, list) and all(isinstance(value, str) for value in values):
        yield name, shlex.join(values) if values else "none"
    elif isinstance(values, list):
        for number, value in enumerate(values, 1):
            yield from entries(value, f"{name} {number}")
    else:
        yield name, values if isinstance(values, str) else json.dumps(values)


def _charts(curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[str, Markup]]:
    """Title and SVG of each chart that has a line; the untrained network would dwarf all else but a single epoch."""
    trained = {name: [point for point in line if point[0] > 0] for name, line in curves.items()}
    curves = trained if any(len(line) > 1 for line in trained.values()) else curves
    percent = {name: [(epoch, 100 * value) for epoch, value in line] for name, line in curves.items()}
    wanted = (
        ("Accuracy", "%", {phase: percent.get(f"{phase}/accuracy") for phase in ("train", "val")}),
        ("Loss", "mean loss", {phase: curves.get(f"{phase}/loss") for phase in ("train", "val")}),
        ("Learning rate", "", {"at the end of the epoch": curves.get("learning_rate")}),
        ("Training speed", "", {"images per second": curves.get("images_per_second")}),
    )
    charts = []
    for title, ylabel, lines in wanted:
        found = {name: line for name, line in lines.items() if line}
        if any(len(line) > 1 for line in found.values()):
            charts.append((title, svg(curves_chart(found, title, ylabel), CURVES_SIZE)))
    return charts


def _pairs(findings: Findings) -> list[tuple[str, str, int, int, list[Example]]]:
    """The most confused pairs: true and predicted class, how many of how many, and the surest of these mistakes."""
    pairs = []
    for true, guess, count in confused_pairs(findings.confusion, PAIRS):
        these = (findings.labels == true) & (findings.predicted == guess)
        shown = _examples(findings, surest(these, findings.confidence, IMAGES_OF_A_PAIR))
        pairs.append((CLASSES[true], CLASSES[guess], count, int(findings.confusion[true].sum()), shown))
    return pairs


def _examples(findings: Findings, chosen: Sequence[int], heat: tuple[Tensor, Tensor] | None = None) -> list[Example]:
    return examples(findings.images, findings.labels, findings.predicted, findings.confidence, chosen, heat)


def _mosaic(name: str, maps: Tensor) -> tuple[str, int, Picture]:
    """Name, number of maps, and those that are shown."""
    height, width = maps.shape[1:]
    return name, len(maps), Picture(mosaic(maps), f"{name}: {height} by {width} values each")


def _polyline(line: Sequence[tuple[float, float]], low: float) -> tuple[str, float, float] | None:
    """The values from epoch 1 on, `low` at the bottom and 1 at the top."""
    values = [value for epoch, value in line if epoch > 0]
    if len(values) < 2:
        return None
    width, height = LINE_SIZE
    x, y = width / (len(values) - 1), height / max(1 - low, 1e-9)
    points = " ".join(f"{i * x:.1f},{(1 - value) * y:.1f}" for i, value in enumerate(values))
    return points, values[0], values[-1]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
