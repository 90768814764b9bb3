"""Numbers as charts."""

import math
import warnings
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fmnist.plotting.style import INK, SMALL_FONT_SIZE, TRAIN, VAL, WRONG, new_figure, styled
from fmnist.training.metric_names import MANY_CLASSES

NUMBERED_CLASSES = 20  # of a confusion matrix: with more, the numbers in its cells can't be read
MARKED = 100  # values of a line with markers
LINES = {"train": (TRAIN, "-", "o"), "val": (VAL, "--", "s")}
OTHER_LINES = ((WRONG, "-", "^"), ("#E69F00", "-.", "D"), ("#009E73", ":", "v"), ("#56B4E9", "--", "P"))
"""Colour, line style and marker: never distinguished by colour alone."""


@styled
def confusion_chart(confusion: Tensor, classes: Sequence[str]) -> Figure:
    """Return the confusion matrix, counts (K true, K predicted), as a table over colours."""
    figure = new_figure(8, 8)
    axes = figure.add_subplot()
    if len(classes) > MANY_CLASSES:
        shares = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
        axes.imshow(shares.sqrt().numpy(), cmap="Blues", interpolation="nearest")
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title("share of the true class (square root)")
        return figure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchmetrics hands a tensor to matplotlib
        matrix = MulticlassConfusionMatrix(len(classes))
        few = len(classes) <= NUMBERED_CLASSES
        matrix.plot(confusion, axes, add_text=few, labels=list(classes), cmap="Blues")
    return figure


@styled
def curves_chart(
    curves: Mapping[str, Sequence[tuple[float, float]]], title: str, ylabel: str, *, from_zero: bool = False
) -> Figure:
    """Return a line for each name over the epochs; NaN and infinity are left out.

    Up to 100 values of a line have markers.

    Args:
        curves: (epoch, value) by name; "train" and "val", alone or before a comma, look the same in every chart.
        ylabel: what the values are, with their unit.
        from_zero: whether the axis of the values begins at 0.
    """
    figure = new_figure(6.5, 3.8)
    axes = figure.add_subplot()
    others = iter(OTHER_LINES * len(curves))
    for name, points in curves.items():
        colour, line, marker = LINES.get(name.split(",")[0]) or next(others)
        finite = [point for point in points if math.isfinite(point[1])]
        if finite:
            marker = marker if len(finite) <= MARKED else ""
            axes.plot(*zip(*finite, strict=True), color=colour, linestyle=line, marker=marker, markersize=5, label=name)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True)
    if from_zero and axes.dataLim.ymax > 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
    if axes.lines:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)
    return figure


@styled
def reliability_chart(confidence: Tensor, accuracy: Tensor, count: Tensor, error: float) -> Figure:
    """Return accuracy over confidence, and the number of images; bins without images are left out.

    Args:
        confidence: mean of each bin (B), 0..1.
        accuracy: of each bin (B), 0..1.
        count: images in each bin (B).
        error: the expected calibration error, 0..1: the mean distance from the diagonal, weighted by images.
            Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, section 2
    """
    filled = count > 0
    x, y = (100 * confidence[filled]).tolist(), (100 * accuracy[filled]).tolist()
    figure = new_figure(6.5, 5.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=1, label="confidence = accuracy")
    upper.vlines(x, x, y, color=WRONG, linewidth=4, label="gap")
    upper.plot(x, y, color=TRAIN, marker="o", markersize=5, linestyle="none", label="accuracy of a bin")
    upper.set(ylabel="accuracy (%)", xlim=(-2, 102), ylim=(-2, 102))
    upper.set_title(f"expected calibration error {100 * error:.2f} %")
    upper.legend(loc="best")
    lower.vlines(x, 0.5, count[filled].tolist(), color=TRAIN, linewidth=8)
    lower.set(xlabel="mean confidence (%)", ylabel="images", yscale="log", ylim=(0.5, None))
    for axes in (upper, lower):
        axes.grid(visible=True)
    return figure


@styled
def class_counts_chart(counts: Mapping[str, Tensor], classes: Sequence[str]) -> Figure:
    """Return the number of images of each class (K) as bars, a panel for each split, all on one scale.

    Many classes are sorted by their number, without their names.
    """
    if len(classes) > MANY_CLASSES:
        classes = list(map(str, range(1, len(classes) + 1)))
        counts = {split: images.sort(descending=True).values for split, images in counts.items()}
    figure = new_figure(2.2 * len(counts) + 1, max(3.4, 0.25 * min(len(classes), MANY_CLASSES)))
    panels = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (split, images) in zip(panels, counts.items(), strict=True):
        if len(classes) > MANY_CLASSES:
            axes.fill_betweenx(range(1, len(classes) + 1), images.tolist(), color=TRAIN)
            axes.set(ylabel="classes, by their number of images")
        else:
            bars = axes.barh(list(classes), images.tolist(), color=TRAIN)
            axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=SMALL_FONT_SIZE)
        axes.set_title(f"{split}: {int(images.sum()):,} images")
        axes.set(xlabel="images", xmargin=0.35)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[0].invert_yaxis()
    return figure
