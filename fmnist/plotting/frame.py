"""From a template and values to a page that needs nothing but itself."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fmnist.plotting.style import RIGHT, WRONG, to_svg


def render(template: str, **values: Any) -> str:
    """The page as HTML in ASCII, so that no encoding can harm it; every text is escaped.

    Args:
        template: a file in this package, which extends plotting/base.html.
        values: what it shows, by the names that stand in it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"percent": percent, "colours": {"right": RIGHT, "wrong": WRONG}}
    return environment.get_template(template).render(**values).encode("ascii", "xmlcharrefreplace").decode()


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1, for people; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}%"


def svg(figure: Figure, size: tuple[float, float] | None = None) -> Markup:
    """A chart for a page, in inches as wide and high as it is to be seen.

    It is taken as it is: matplotlib makes it, and escapes the texts in it.
    """
    if size:
        figure.set_size_inches(size)
    return Markup(to_svg(figure))  # nosec B704 (matplotlib's text, escaped by it)
