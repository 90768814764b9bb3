"""Files that nobody sees half of."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def atomic_write(file: Path, text: str) -> None:
    """Writes a text so that no reader sees half of it."""
    with atomic_path(file) as beside:
        beside.write_text(text)


@contextlib.contextmanager
def atomic_path(file: Path) -> Iterator[Path]:
    """A file beside, to be written, which then takes the file's place: no reader sees half of it."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # what lies there under such a name may be a link to elsewhere
    try:
        yield beside
        beside.replace(file)
    except OSError as error:
        if error.strerror and error.filename in (None, str(beside)):
            error.filename = str(file)  # the name that a person knows
        raise
    finally:
        beside.unlink(missing_ok=True)


def load_json(file: Path) -> dict[str, Any]:
    """The names and values that a file holds; none where there is no file.

    Raises:
        ValueError: if it can't be read, or holds something else.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} doesn't hold names and values")
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes plain values for programs and people to read."""
    atomic_write(file, json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    """None in the place of NaN and infinities, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
