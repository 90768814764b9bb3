"""IDX files, plain or .gz: found, read once and checked. What is returned are the bytes that were checked. No torch.

An IDX file holds a magic number with the type and the number of dimensions, the dimensions, and the values.
"""

import contextlib
import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LARGEST_FILE = 47_040_016  # bytes, of the training images; a .gz that unpacks to more is none of the four files
TYPES = {
    code: np.dtype(name) for code, name in ((8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8"))
}
"""The type of the values, big-endian, by its code in the magic number."""


class DataUnavailableError(ValueError):
    """A file, a source or the dataset can't be read or stored. The message is for the user."""


class DamagedFileError(DataUnavailableError):
    """The contents of a file are proven wrong: truncated, badly compressed, or no IDX file."""


class OtherDataError(DataUnavailableError):
    """The contents of a file are not those that are looked for, but may be good for something else."""


class DataFile(NamedTuple):
    """A file that has been read."""

    path: Path
    data: bytes
    """Uncompressed contents."""
    sha256: str
    """Of the uncompressed contents."""


def find(name: str, *folders: Path) -> list[Path]:
    """Return the plain and .gz files with that name.

    Raises:
        DataUnavailableError: if a folder can't be searched.
    """
    paths = [folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz")]
    found = []
    for path in paths:
        with _system_errors_explained(path):
            found += [path] if path.is_file() else []
    return found


def read(path: Path, limit: int = -1) -> DataFile:
    """Return a file with the first `limit` bytes of its uncompressed contents; all of them by default.

    Raises:
        DamagedFileError: if it can't be uncompressed.
        DataUnavailableError: if the system can't read it now, which says nothing about its contents.
    """
    with _system_errors_explained(path):
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                data = file.read(limit)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DamagedFileError(f"{path} is damaged ({error})") from error
    return DataFile(path, data, hashlib.sha256(data).hexdigest())


def read_verified(path: Path, checksum: str) -> DataFile:
    """Return a file whose uncompressed contents have that SHA-256.

    Raises:
        DamagedFileError: if it is truncated, badly compressed, or no IDX file.
        OtherDataError: if it is a complete IDX file with other contents, or larger than the four files.
        DataUnavailableError: if the system can't read it now.
    """
    file = read(path, LARGEST_FILE + 1)
    if file.sha256 == checksum:
        return file
    if len(file.data) > LARGEST_FILE:
        raise OtherDataError(f"{path} is none of Fashion-MNIST's files (more than {LARGEST_FILE:,} bytes)")
    if dimensions(file.data) is None:
        raise DamagedFileError(f"{path} is damaged (no complete IDX file, {len(file.data):,} bytes)")
    raise OtherDataError(
        f"{path} is an IDX file, but not Fashion-MNIST's (SHA-256 {file.sha256[:9]}..., not {checksum[:9]}...)"
    )


def dimensions(data: bytes) -> tuple[int, ...] | None:
    """Return the dimensions of a complete IDX file; None if the data are something else, or too short or too long."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES or not data[3]:
        return None
    start = 4 + 4 * data[3]
    sizes = tuple(int.from_bytes(data[place : place + 4]) for place in range(4, start, 4))
    return sizes if len(data) == start + TYPES[data[2]].itemsize * math.prod(sizes) else None


def values(file: DataFile) -> NDArray[Any]:
    """Return the values of a file in its dimensions, in an array of their own.

    Raises:
        DamagedFileError: if it is no complete IDX file.
    """
    sizes = dimensions(file.data)
    if sizes is None:
        raise DamagedFileError(f"{file.path} is no complete IDX file ({len(file.data):,} bytes)")
    return np.frombuffer(file.data, TYPES[file.data[2]], offset=4 + 4 * len(sizes)).reshape(sizes).copy()


@contextlib.contextmanager
def _system_errors_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError) as error:
        reason = "too little memory" if isinstance(error, MemoryError) else getattr(error, "strerror", None) or error
        raise DataUnavailableError(f"{path} can't be read: {reason}; it is left as it is") from error
