"""Pages that people write, with tables in them that are written anew."""

import re
from collections.abc import Mapping
from pathlib import Path

from fmnist.config.validation import did_you_mean
from fmnist.runs.files import atomic_write

NAMES = r"recipes short|recipes|test time|ablations \S+|missed classes|missed|twins"
BEGIN = re.compile(f"<!-- ({NAMES}) -->")
BETWEEN = re.compile(rf"<!-- ({NAMES}) -->(?:(?!<!-- (?:{NAMES}) -->).)*?<!-- /\1 -->", re.DOTALL)


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its markers, `<!-- recipes -->` and `<!-- /recipes -->`; all else stays.

    Args:
        text: of the page.
        tables: by name.

    Raises:
        ValueError: if a marker names no table, or has no end.
    """
    ended = [found[1] for found in BETWEEN.finditer(text)]
    for name in BEGIN.findall(text):
        if name not in tables:
            raise ValueError(f"<!-- {name} -->: there is no such table{did_you_mean(name, tables)}")
        if name not in ended:
            raise ValueError(f"<!-- {name} --> has no <!-- /{name} -->")
        ended.remove(name)
    return BETWEEN.sub(lambda found: f"<!-- {found[1]} -->\n\n{tables[found[1]]}\n\n<!-- /{found[1]} -->", text)


def read_page(page: Path, tables: Mapping[str, str]) -> str:
    """A page as it is to be.

    Raises:
        ValueError: if there is none, or its markers can't be.
    """
    try:
        return filled(page.read_text(), tables)
    except OSError as error:
        raise ValueError(f"pages={page}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{page}: {error}") from error


def write_pages(pages: Mapping[Path, str]) -> None:
    """Writes those that are no longer as they were, so that nobody sees half of one."""
    for page, text in pages.items():
        if page.read_text() != text:
            atomic_write(page, text)
