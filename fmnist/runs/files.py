"""Files that are replaced as a whole, and JSON files."""

import contextlib
import csv
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def atomic_write(file: Path, text: str) -> None:
    """Replace the content of a file; a reader sees either the old text or the new one."""
    with atomic_path(file) as temporary, temporary.open("x", encoding="utf-8") as stream:
        stream.write(text)


@contextlib.contextmanager
def atomic_path(file: Path, keep: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces `file` once it is written and on the disk.

    If writing fails, `file` stays as it was, and the temporary file is removed. `keep` is a new name of the old file.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # it may be a link that somebody else made
    try:
        yield temporary
        with temporary.open("rb+") as written:  # Windows syncs no file that is open for reading alone
            os.fsync(written.fileno())
        if keep and file.is_file():
            file.replace(keep)
        temporary.replace(file)
    except OSError as error:
        if error.strerror and error.filename in (None, str(temporary)):
            error.filename = str(file)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises:
        UnicodeDecodeError: if it is no UTF-8.
        OSError: with the file's name, if the system can't read it, which says nothing about its content.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        error.filename = str(file)  # an error in reading has none
        raise


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def if_readable(read: Callable[[], T], use: str) -> T | None:
    """Return what is read; None where it is missing, and None, with a warning, where it is damaged.

    Args:
        read: reads it.
        use: what it is left out of then.
    """
    try:
        return read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        log.warning("left out of %s: %s", use, error)
        return None


def load_json(file: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file holds; an empty one if there is no file.

    Raises:
        ValueError: if the file is damaged, or holds something else.
        OSError: if the system can't read it, which says nothing about its content.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a mapping")
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON, with null for NaN and infinities."""
    atomic_write(file, json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
