"""Getting the four Fashion-MNIST files from whatever source a machine has, checked by their contents.

They end up uncompressed in `root/FashionMNIST/raw/`, where `torchvision.datasets.FashionMNIST` looks for them.
"""

import contextlib
import errno
import gzip
import hashlib
import io
import logging
import os
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

# SHA-256 of the uncompressed files: Debian packs them anew, so that its .gz files differ from the original ones
# (whose MD5 torchvision knows) while their contents are the same.
CHECKSUMS: Mapping[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST_FILE = 47_040_016  # bytes of the training images; a .gz that unpacks to more is none of the four
PACKAGE = "dataset-fashion-mnist"
PACKAGE_FOLDER = "usr/share/datasets/fashion-mnist"
SYSTEM_FOLDER = Path("/", PACKAGE_FOLDER)
SOCKET_TIMEOUT, COMMAND_TIMEOUT = 5.0, 300.0  # seconds: a machine without network should learn it soon
LOCK_NOTICE, LOCK_TIMEOUT = 2.0, 1800.0  # seconds until waiting for another process is told, and given up


class DataUnavailableError(ValueError):
    """A file, a source or the whole dataset cannot be had or stored; the message is meant for the user."""


def ensure_files(root: Path, checksums: Mapping[str, str] | None = CHECKSUMS) -> dict[str, str]:
    """Put in place what is missing or damaged, and return each file's SHA-256.

    With `checksums=None` the user's own files, in `root/FashionMNIST/raw/` or in `root`, plain or .gz, are taken
    unverified if they are well-formed, and nothing is fetched. Several processes may call this at once. Raises
    DataUnavailableError if no source has a good file, or if `root` has to be written to and cannot be.
    """
    root = root.absolute()
    raw = root / "FashionMNIST" / "raw"
    if checksums is None:
        return _own_files(root, raw)
    with contextlib.suppress(DataUnavailableError):  # without the lock, as a complete folder may well be read-only
        found = {name: _digest(raw / name, expected) for name, expected in checksums.items()}
        log.info("Fashion-MNIST: %d verified files in data.root=%s", len(found), root)
        return found
    with _writing(root, raw) as scratch:
        _gather(root, raw, scratch, checksums)
    return dict(checksums)


def check_root(key: str, root: object) -> None:
    """Refuses the data folder of a run that was made elsewhere, before anything is made there.

    Raises:
        DataUnavailableError: naming the key that gives another one.
    """
    if isinstance(root, str) and not Path(root).is_dir():
        raise DataUnavailableError(f"the run's data folder {root} isn't here: {key}=<folder> says where its files are")


def _gather(root: Path, raw: Path, scratch: Path, checksums: Mapping[str, str]) -> None:
    """Take from each source in turn what is still wanted, so that good files are kept."""
    sources: dict[str, Callable[[Path], tuple[Path, ...]]] = {
        f"data.root={root}": lambda _: (raw, root),
        f"system folder {SYSTEM_FOLDER}": lambda _: (SYSTEM_FOLDER,),
        "torchvision's download": _torchvision_download,
        f"Debian's package {PACKAGE}": _debian_package,
    }
    wanted = dict(checksums)
    failures = []
    for label, source in sources.items():
        try:
            problems = _take(wanted, source(scratch), raw, scratch)
        except DataUnavailableError as error:
            problems = dict.fromkeys(wanted, str(error))
        if not problems:
            log.info("Fashion-MNIST: %s verified from %s", ", ".join(wanted), label)
            return
        failures.append(f"{label}: {'; '.join(dict.fromkeys(problems.values()))}")
        log.warning("Fashion-MNIST: %s", failures[-1])
        wanted = {name: wanted[name] for name in problems}
    lines = [f"Fashion-MNIST is not available, no source has {', '.join(wanted)}:", *failures]
    advice = f"Install Debian's package (apt install {PACKAGE}), or put {', '.join(checksums)} (plain or .gz)"
    advice += f" into {raw}, or name a folder that holds them by data.root=..."
    raise DataUnavailableError("\n  ".join(lines) + "\n" + advice)


def _torchvision_download(scratch: Path) -> tuple[Path, ...]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        from torchvision.datasets import FashionMNIST

        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            FashionMNIST(str(scratch), download=True)
    except Exception as error:  # whatever a proxy or a server makes of it is but a reason to go on
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # a full disk would fail every source
        raise DataUnavailableError(" ".join(str(error).split()) or type(error).__name__) from error
    finally:
        socket.setdefaulttimeout(before)
    return (scratch / "FashionMNIST" / "raw",)


def _debian_package(scratch: Path) -> tuple[Path, ...]:
    if missing := [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]:
        raise DataUnavailableError(f"no {' and no '.join(missing)} here")
    # Run by root, apt would download as another user, who may not reach this folder.
    apt = ["apt-get", "-qq", "-oAPT::Sandbox::User=root", "-oAPT::Update::Error-Mode=any"]
    apt += ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=10"]
    try:
        _run(scratch, *apt, "download", PACKAGE)
    except DataUnavailableError:  # missing or old package lists, perhaps; lists of our own need no root
        (scratch / "lists" / "partial").mkdir(parents=True)
        apt += [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache"]
        _run(scratch, *apt, "update")
        _run(scratch, *apt, "download", PACKAGE)
    for package in scratch.glob(f"{PACKAGE}_*.deb"):
        _run(scratch, "dpkg-deb", "-x", str(package), "unpacked")
    return (scratch / "unpacked" / PACKAGE_FOLDER,)


def _run(cwd: Path, *command: str) -> None:
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, input="", capture_output=True, errors="replace", timeout=COMMAND_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataUnavailableError(f"{command[0]}: {error}") from error
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr]
        raise DataUnavailableError(f"{command[0]} failed ({done.returncode}): {told[0].strip()[:300]}")


def _take(wanted: Mapping[str, str], folders: tuple[Path, ...], raw: Path, scratch: Path) -> dict[str, str]:
    """Put in place the wanted files that the folders have; return what is wrong with each of the others."""
    found = {name: _candidates(name, folders) for name in wanted}
    if not any(found.values()):
        raise DataUnavailableError("none of the wanted files is there")
    problems = {}
    for name, paths in found.items():
        reasons = []
        for path in paths:
            try:
                _put(path, raw / name, scratch, wanted[name])
                break
            except DataUnavailableError as error:
                reasons.append(str(error))
        else:
            problems[name] = ", ".join(reasons) or f"{name} missing"
    return problems


def _candidates(name: str, folders: tuple[Path, ...]) -> list[Path]:
    paths = [path for folder in folders for path in (folder / name, folder / f"{name}.gz")]
    return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 - Path.is_file raises in a closed folder


def _put(path: Path, target: Path, scratch: Path, expected: str | None) -> None:
    if path == target:
        _digest(path, expected)
        return
    with (scratch / target.name).open("wb") as copy:
        _digest(path, expected, copy)
        copy.flush()
        os.fsync(copy.fileno())
    (scratch / target.name).replace(target)


def _digest(path: Path, expected: str | None, copy: BinaryIO | None = None) -> str:
    """Return the SHA-256 of the uncompressed contents, copied along the way."""
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        size += len(chunk)
        if expected and size > LARGEST_FILE:
            raise DataUnavailableError(f"{path} damaged (more than {LARGEST_FILE:,} bytes)")
        digest.update(chunk)
        if copy:
            copy.write(chunk)
    found = digest.hexdigest()
    if expected and found != expected:
        raise DataUnavailableError(f"{path} damaged ({size:,} bytes, SHA-256 {found[:9]}..., not {expected[:9]}...)")
    return found


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnavailableError(f"{path} unreadable ({error})") from error


@contextlib.contextmanager
def _writing(root: Path, raw: Path) -> Iterator[Path]:
    """Lock `root`, remove what an interrupted attempt has left, and give a scratch folder on `raw`'s file system."""
    scratch = raw / ".incoming"
    try:
        raw.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".fmnist.lock")
        try:
            held = lock.acquire(timeout=LOCK_NOTICE)
        except Timeout:
            log.info("Fashion-MNIST: waiting for another process, which is preparing data.root=%s", root)
            held = lock.acquire(timeout=LOCK_TIMEOUT)
        with held:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:  # filelock's Timeout included
        raise DataUnavailableError(f"data.root={root} cannot be written to: {error}") from error


def _own_files(root: Path, raw: Path) -> dict[str, str]:
    found = {name: _candidates(name, (raw, root)) for name in CHECKSUMS}
    if missing := [name for name, paths in found.items() if not paths]:
        raise DataUnavailableError(f"data.root={root} has no {', no '.join(missing)} (plain or .gz, there or in {raw})")
    counts = {name: _count(paths[0]) for name, paths in found.items()}
    if list(counts.values())[::2] != list(counts.values())[1::2]:
        raise DataUnavailableError(f"data.root={root}: there must be as many images as labels, but {counts}")
    if any(paths[0] != raw / name for name, paths in found.items()):
        with _writing(root, raw) as scratch:
            for name, paths in found.items():
                _put(paths[0], raw / name, scratch, None)
    log.info("Fashion-MNIST: the files in data.root=%s are taken as they are, not verified", root)
    return {name: _digest(raw / name, None) for name in CHECKSUMS}


def _count(path: Path) -> int:
    """Return how many 28x28 images or labels a well-formed IDX file holds (magic number, dimensions, data)."""
    data = b"".join(_chunks(path))
    count = int.from_bytes(data[4:8])
    header, item = b"\0\0\x08\x01" + data[4:8], 1
    if "images" in path.name:
        header, item = b"\0\0\x08\x03" + data[4:8] + b"\0\0\0\x1c" * 2, 28 * 28
    if not count or not data.startswith(header) or len(data) != len(header) + count * item:
        raise DataUnavailableError(f"{path} is no complete IDX file of 28x28 images or labels ({len(data):,} bytes)")
    if item == 1 and max(data[8:]) > 9:
        raise DataUnavailableError(f"{path} has the label {max(data[8:])}, which is not in 0..9")
    return count
