"""The look of every figure, and figures as PNG files and as SVG for a page."""

import io
import re
import warnings
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# Okabe and Ito's colours: distinct for every kind of colour vision, with a contrast of 3 or more on white and on
# near-black.
# Source: https://jfly.uni-koeln.de/color/
RIGHT = "#009E73"
WRONG = "#D55E00"
TRAIN = "#0072B2"
VAL = "#CC79A7"

INK = "#010203"
"""The colour of text and axes: black in a PNG, the page's text colour in an SVG, which is how dark mode works."""

DPI = 112
FONT_SIZE, SMALL_FONT_SIZE = 10, 8  # points

_STYLE: Any = {  # Any, as matplotlib's own annotation lists each of its 300 keys
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and has ✓ and ✗
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": SMALL_FONT_SIZE,
    "ytick.labelsize": SMALL_FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    **dict.fromkeys(
        ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"], INK
    ),
}
styled = rc_context(_STYLE)
"""Decorator of a function that draws: matplotlib has the style while it runs, and its earlier settings afterwards."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches, which arranges its contents when it is rendered."""
    return Figure((width, height), dpi=DPI, facecolor="white", layout="constrained")


def save_png(figure: Figure, file: Path) -> None:
    """Write the figure at `DPI` on white."""
    figure.savefig(file, format="png", dpi=DPI)


def to_svg(figure: Figure) -> str:
    """Return one `<svg>` element for an HTML page, the same for the same figure.

    Text stays text and has the page's colour, and there is no background. The ids that remain are hashes of what they
    name: two figures of a page share one only where both define the same.
    """
    text = io.StringIO()
    with warnings.catch_warnings(), rc_context(_STYLE | {"svg.fonttype": "none", "svg.hashsalt": "fmnist"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # from matplotlib's font; the browser has others
        figure.savefig(text, format="svg", dpi=DPI, facecolor="none", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", svg).replace(INK, "currentColor").strip()
