"""Numbers as charts."""

import math
from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from torch import Tensor

from fmnist.plotting.style import INK, SMALL_FONT_SIZE, TRAIN, VAL, WRONG, new_figure, styled

CURVES = {"train": (TRAIN, "-", "o"), "val": (VAL, "--", "s")}
OTHER_CURVES = ((WRONG, ":", "^"), ("#E69F00", "-.", "D"), ("#009E73", "-", "v"), ("#56B4E9", "--", "P"))
"""Colour, line and marker: never told apart by colour alone."""


@styled
def confusion_chart(confusion: Tensor, classes: Sequence[str]) -> Figure:
    """A table of the counts, none written where there are none, over the share of the true class as colour.

    The colour goes with the square root of the share, so that a hundredth is still seen beside the diagonal.

    Args:
        confusion: counts (K true, K predicted).
        classes: names of the K classes.
    """
    share = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    figure = new_figure(5.4, 4.9)
    axes = figure.add_subplot()
    norm, colormap = PowerNorm(0.5, vmin=0, vmax=1), colormaps["Blues"]
    axes.pcolormesh(share.numpy(), cmap=colormap, norm=norm, edgecolors="white", linewidth=1)
    for row, counts in enumerate(confusion.tolist()):
        for column, count in enumerate(counts):
            if count:
                colour = "white" if norm(share[row, column].item()) > 0.7 else "black"
                axes.text(column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)
    places = [index + 0.5 for index in range(len(classes))]
    axes.set_xticks(places, classes, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, classes)
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title("images by class; colour: share of the true class (square-root scale)", fontsize=SMALL_FONT_SIZE)
    return figure


@styled
def curves_chart(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, ylabel: str) -> Figure:
    """A line for each name over the epochs, a point for each value; values that aren't finite are left out.

    Args:
        curves: (epoch, value) by name; "train" and "val" look the same in every chart.
        title: what is shown.
        ylabel: what the values are, with their unit.
    """
    figure = new_figure(6.5, 3.8)
    axes = figure.add_subplot()
    others = iter(OTHER_CURVES * len(curves))
    for name, points in curves.items():
        colour, line, marker = CURVES[name] if name in CURVES else next(others)
        finite = [point for point in points if math.isfinite(point[1])]
        if finite:
            axes.plot(*zip(*finite, strict=True), color=colour, linestyle=line, marker=marker, markersize=5, label=name)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True)
    if axes.lines:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)
    return figure


@styled
def reliability_chart(confidence: Tensor, accuracy: Tensor, count: Tensor, error: float) -> Figure:
    """Accuracy over confidence, and how many images there are; bins without images are left out.

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
    """How many images each class has, a panel for each split, all on one scale.

    Args:
        counts: images of each class (K) by split.
        classes: names of the K classes.
    """
    figure = new_figure(2.2 * len(counts) + 1, 3.4)
    panels = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (split, images) in zip(panels, counts.items(), strict=True):
        bars = axes.barh(list(classes), images.tolist(), color=TRAIN)
        axes.bar_label(bars, [f"{number:,}" for number in images.tolist()], padding=3, fontsize=SMALL_FONT_SIZE)
        axes.set_title(f"{split}: {int(images.sum()):,} images")
        axes.set(xlabel="images", xmargin=0.35)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[0].invert_yaxis()
    return figure
