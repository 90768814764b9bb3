"""Templates and values as HTML pages that load nothing."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fmnist.plotting.style import RIGHT, WRONG, to_svg


def render(template: str, **values: Any) -> str:
    """Return the page as HTML in ASCII, which no encoding can damage; every text is escaped.

    Args:
        template: a file in this package, which extends plotting/base.html.
    """
    loader = FileSystemLoader(Path(__file__).parents[1])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"percent": percent, "colours": {"right": RIGHT, "wrong": WRONG}}
    return environment.get_template(template).render(**values).encode("ascii", "xmlcharrefreplace").decode()


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 as a percentage; a dash for None and NaN."""
    return "-" if share is None or share != share else f"{100 * share:.{digits}f}%"


def svg(figure: Figure, size: tuple[float, float] | None = None) -> Markup:
    """Return a chart as SVG for a page, which is not escaped again: matplotlib escapes the texts in it.

    Args:
        size: width and height in inches, if they are to change.
    """
    if size:
        figure.set_size_inches(size)
    return Markup(to_svg(figure))  # nosec B704 (matplotlib's text, escaped by it)
