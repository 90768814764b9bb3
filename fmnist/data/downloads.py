"""Downloads: torchvision's, and Debian's package of Fashion-MNIST. Each yields a temporary folder."""

import contextlib
import errno
import io
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmnist.data.idx import DataUnavailableError

PACKAGE = "dataset-fashion-mnist"
PACKAGE_FOLDER = "usr/share/datasets/fashion-mnist"
SOCKET_TIMEOUT, COMMAND_TIMEOUT = 5.0, 300.0  # seconds; a machine without a network fails soon


@contextlib.contextmanager
def torchvision_download(dataset: str = "FashionMNIST", **options: Any) -> Iterator[Path]:
    """Yield a temporary folder with the files of a dataset, as torchvision downloads and verifies them.

    Args:
        dataset: name of torchvision's class.
        options: its arguments.

    Raises:
        DataUnavailableError: if it can't.
    """
    from torchvision import datasets

    cls = getattr(datasets, dataset)
    with _temporary_folder() as folder:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SOCKET_TIMEOUT)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
                cls(str(folder), download=True, **options)
        except Exception as error:  # proxies and servers cause errors of many kinds; the next source is tried
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # about the folder
            places = getattr(cls, "mirrors", None) or [cls.url]
            raise DataUnavailableError(f"{', '.join(places)}: {_last_line(error)}") from error
        finally:
            socket.setdefaulttimeout(before)
        raw = folder / dataset / "raw"
        yield raw if raw.is_dir() else folder


def _last_line(error: Exception) -> str:
    """Return the reason in an error of torchvision, which begins with a line for each file and mirror."""
    line = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return re.sub(r"^<urlopen error (?:\[Errno -?\d+\] )?(.*)>$", r"\1", line)


@contextlib.contextmanager
def debian_package() -> Iterator[Path]:
    """Yield a temporary folder with the files of Debian's package.

    Raises:
        DataUnavailableError: if it can't be downloaded or unpacked.
    """
    if missing := [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]:
        raise DataUnavailableError(f"no {' and no '.join(missing)} here")
    # As root, apt would download as another user, who may have no access to this folder.
    apt = ["apt-get", "-qq", "-oAPT::Sandbox::User=root", "-oAPT::Update::Error-Mode=any"]
    apt += ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=10"]
    with _temporary_folder() as folder:
        try:
            _run(folder, *apt, "download", PACKAGE)
        except DataUnavailableError:  # perhaps for missing or old package lists; lists in a folder of ours need no root
            (folder / "lists" / "partial").mkdir(parents=True)
            apt += [f"-oDir::State::Lists={folder}/lists", f"-oDir::Cache={folder}/cache"]
            _run(folder, *apt, "update")
            _run(folder, *apt, "download", PACKAGE)
        for package in folder.glob(f"{PACKAGE}_*.deb"):
            _run(folder, "dpkg-deb", "-x", str(package), "unpacked")
        yield folder / "unpacked" / PACKAGE_FOLDER


def _run(cwd: Path, *command: str) -> None:
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, input="", capture_output=True, errors="replace", timeout=COMMAND_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise DataUnavailableError(f"{command[0]} took more than {error.timeout:g} seconds") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr]
        raise DataUnavailableError(f"{command[0]} failed ({done.returncode}): {errors[0].strip()[:300]}")


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Yield a new folder, not one in data.root: there the file system may lack what apt and torchvision need."""
    try:
        with tempfile.TemporaryDirectory(prefix="fmnist_", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        raise DataUnavailableError(f"{error} (TMPDIR=<folder> names the folder of downloads)") from error
