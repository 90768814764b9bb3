"""The course of a training over its epochs: metrics.csv as numbers and as charts."""

import contextlib
import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fmnist.plotting.charts import curves_chart
from fmnist.plotting.frame import svg
from fmnist.report.run_files import REPORT
from fmnist.runs.files import if_readable
from fmnist.training.classifier import Classifier

Curve = list[tuple[float, float]]
"""(epoch, value), the epochs rising."""
Curves = dict[str, Curve]
"""By the column of metrics.csv."""

SIZE = (4.6, 2.8)  # inches of a chart, small, so that text can be read on a phone
STEPS = 400  # at most, for which the learning rate is drawn


def read_curves(file: Path) -> Curves:
    """Return the finite numbers of each column of a run's metrics.csv."""
    curves: Curves = defaultdict(list)
    for row in if_readable(lambda: list(csv.DictReader(file.read_text().splitlines())), REPORT) or []:
        for name, text in row.items():
            with contextlib.suppress(TypeError, ValueError):  # an empty cell, or one too many or too few
                epoch, value = float(row.get("epoch", "")), float(text)
                if math.isfinite(epoch) and math.isfinite(value):
                    curves[name].append((epoch, value))
    return dict(curves)


def charts(curves: Curves, classifier: Classifier, max_epochs: int, max_steps: int) -> list[tuple[str, Markup]]:
    """Return title and SVG of each chart of at least two epochs.

    Epoch 0, the untrained network, would dwarf the others: it is shown only where a single epoch follows.

    Args:
        curves: of the run.
        classifier: of the run; its loss and its schedule say what isn't in the curves.
        max_epochs: of the run's config, as is `max_steps`.
    """
    trained = {name: [point for point in line if point[0] > 0] for name, line in curves.items()}
    curves = trained if any(len(line) > 1 for line in trained.values()) else curves
    percent = {name: [(epoch, 100 * value) for epoch, value in line] for name, line in curves.items()}
    smoothing = getattr(classifier.loss, "label_smoothing", 0)
    loss = f"train, labels smoothed by {smoothing:g}" if smoothing else "train"
    wanted: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
        ("Accuracy", "%", {phase: percent.get(f"{phase}/accuracy") for phase in ("train", "val")}, False),
        ("Loss", "mean loss", {loss: curves.get("train/loss"), "val": curves.get("val/loss")}, False),
        ("Learning rate", "", learning_rates(curves, classifier, max_epochs, max_steps), True),
        ("Training speed", "", {"images per second": curves.get("images_per_second")}, True),
    )
    drawn = []
    for title, ylabel, lines, from_zero in wanted:
        found = {name: line for name, line in lines.items() if line}
        if any(len(line) > 1 for line in found.values()):
            drawn.append((title, svg(curves_chart(found, title, ylabel, from_zero=from_zero), SIZE)))
    return drawn


def learning_rates(curves: Curves, classifier: Classifier, max_epochs: int, max_steps: int) -> dict[str, Curve]:
    """Return the learning rate by step, or by epoch where the schedule doesn't explain the logged values.

    It doesn't where the number of steps or the schedule changed on the way, as on resuming with more epochs.
    """
    logged, steps = dict(curves.get("learning_rate", ())), dict(curves.get("step", ()))
    by_epoch = {"at the end of the epoch": list(logged.items())}
    if steps.get(1, 0) < 1 or not logged.keys() <= steps.keys():
        return by_epoch
    total = min(steps[1] * max_epochs if max_epochs > 0 else math.inf, max_steps if max_steps >= 0 else math.inf)
    if math.isinf(total):  # of a damaged file
        return by_epoch
    optimizer = classifier.optimizer([weights for weights in classifier.network.parameters() if weights.requires_grad])
    lr: float = optimizer.param_groups[0]["lr"]

    def rate(step: float) -> float:
        return lr * classifier.schedule(round(step), round(total))

    if not all(math.isclose(rate(steps[epoch]), value, rel_tol=1e-4, abs_tol=1e-9) for epoch, value in logged.items()):
        return by_epoch
    last = max(steps.values())
    drawn = sorted({round(last * part / STEPS) for part in range(STEPS + 1)})
    return {"by step": [(step / steps[1], rate(step)) for step in drawn]}
