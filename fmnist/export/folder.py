"""A folder that appears when all of its files are written."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def check_output(output: Path) -> None:
    """Refuse a folder that holds anything, or can't be one.

    Raises:
        ValueError: naming the key.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"output={output}: must be a folder")
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"output={output}: is not empty: name another folder")


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `output` if all goes well; else nothing is left.

    Raises:
        ValueError: if the folder can't be made.
    """
    output = output.resolve()  # a link to an empty folder stays
    parent = output.parent
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    temporary = parent / f".{output.name}.{os.getpid()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        _remove_empty(missing)
        raise ValueError(f"output={output}: can't be made: {error.strerror}") from error
    try:
        yield temporary
        if output.is_dir():
            output.rmdir()  # it is empty
        temporary.rename(output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(missing)
        raise


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders, the innermost first, that are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
