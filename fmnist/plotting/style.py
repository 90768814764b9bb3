"""How every picture looks, and how it becomes pixels, a PNG file or an SVG that follows its page's theme."""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours: apart for every kind of colour vision, and with a contrast of 3 or more on white and on
# near-black.
# Source: https://jfly.uni-koeln.de/color/
RIGHT = "#009E73"
WRONG = "#D55E00"
TRAIN = "#0072B2"
VAL = "#CC79A7"

INK = "#010203"
"""Of everything neutral: black to the eye, and in an SVG the mark by which it is found and follows the page's text."""

DPI = 112  # four pixels for each of 28 in an inch
FONT_SIZE, SMALL_FONT_SIZE = 10, 8  # points

_STYLE: Any = {  # Any, as matplotlib's own annotation names each of its 300 keys
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and has the marks of right and wrong
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": SMALL_FONT_SIZE,
    "ytick.labelsize": SMALL_FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "figure.facecolor": "white",
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
"""Decorates a function that draws: matplotlib has the style while it runs, and what it had before afterwards."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, which arranges what is put into it when it is rendered."""
    figure = Figure((width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_array(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The figure's pixels (H, W, 3), uint8: what `SummaryWriter.add_image(..., dataformats="HWC")` takes."""
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no annotations
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(figure: Figure, file: Path) -> None:
    """Writes the figure at `DPI` on white."""
    figure.savefig(file, format="png", dpi=DPI)


def to_svg(figure: Figure) -> str:
    """One `<svg>` element for an HTML page, the same for the same figure, as wide as where it stands.

    Text stays text, what is neutral takes the page's `currentColor`, and nothing is drawn behind it. Its ids hold a
    hash of all it draws, so that two different figures on a page never share one.
    """
    text = io.StringIO()
    with (
        warnings.catch_warnings(),
        rc_context(_STYLE | {"svg.fonttype": "none", "svg.hashsalt": "fmnist", "svg.image_inline": True}),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # from matplotlib's font; the browser has others
        figure.savefig(text, format="svg", dpi=DPI, facecolor="none", metadata=dict.fromkeys(_METADATA))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    # matplotlib's style sheet would be that of the whole page.
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor")
    return _responsive(_with_own_ids(svg))


_METADATA = ("Date", "Creator", "Format", "Type")


def _responsive(svg: str) -> str:
    """The same with a root that has proportions instead of a size."""
    found = re.search(r'viewBox="[^"]+"', svg)
    assert found is not None
    style = "height: auto; stroke-linejoin: round; stroke-linecap: butt"
    root = f'<svg xmlns="http://www.w3.org/2000/svg" {found[0]} width="100%" style="{style}">'
    return re.sub(r"<svg[^>]*>", root, svg, count=1)


def _with_own_ids(svg: str) -> str:
    """Ids that something refers to get a prefix of this picture's own; all others go."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:12]
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="f{prefix}-{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>f{prefix}-", svg)
