"""The four Fashion-MNIST files: found on the machine or downloaded, and verified by their contents.

They are stored uncompressed in `root/FashionMNIST/raw/`, where `torchvision.datasets.FashionMNIST` looks for them.
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

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

# SHA-256 of the uncompressed files. Debian compresses them anew: its .gz files differ from the original ones, whose MD5
# torchvision knows, but their contents are the same.
CHECKSUMS: Mapping[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST_FILE = 47_040_016  # bytes, of the training images; a .gz that unpacks to more is none of the four files
PACKAGE = "dataset-fashion-mnist"
PACKAGE_FOLDER = "usr/share/datasets/fashion-mnist"
SYSTEM_FOLDER = Path("/", PACKAGE_FOLDER)
SOCKET_TIMEOUT, COMMAND_TIMEOUT = 5.0, 300.0  # seconds; a machine without a network fails soon
LOCK_NOTICE, LOCK_TIMEOUT = 2.0, 1800.0  # seconds of waiting for another process until it is logged, and until it fails


class DataUnavailableError(ValueError):
    """A file, a source or the dataset can't be read or stored. The message is for the user."""


def ensure_files(root: Path, checksums: Mapping[str, str] | None = CHECKSUMS) -> dict[str, str]:
    """Put missing or damaged files in place, and return each file's SHA-256.

    Several processes may call it at once. Without checksums it takes the user's own files from `root/FashionMNIST/raw/`
    or `root`, plain or .gz, unverified if they are well-formed, and downloads nothing.

    Raises:
        DataUnavailableError: if no source has a good file, or a file must be written to `root` and can't be.
    """
    root = root.absolute()
    raw = root / "FashionMNIST" / "raw"
    if checksums is None:
        return _own_files(root, raw)
    with contextlib.suppress(DataUnavailableError):  # before the lock, as a complete folder may be read-only
        for name, checksum in checksums.items():
            _verified(raw / name, checksum)
        log.info("Fashion-MNIST: %d verified files in data.root=%s", len(checksums), root)
        return dict(checksums)
    with _locked(root, raw) as scratch:
        _gather(root, raw, scratch, checksums)
    return dict(checksums)


def check_root(key: str, root: object) -> None:
    """Check that a run's data folder exists on this machine, before anything is created in its place.

    Raises:
        DataUnavailableError: naming the key that sets another folder.
    """
    if isinstance(root, str) and not Path(root).is_dir():
        raise DataUnavailableError(f"the run's data folder {root} isn't here: {key}=<folder> says where its files are")


def _gather(root: Path, raw: Path, scratch: Path, checksums: Mapping[str, str]) -> None:
    """Take the missing files from each source in turn; good files are kept."""
    sources: dict[str, Callable[[Path], tuple[Path, ...]]] = {
        f"data.root={root}": lambda _: (raw, root),
        f"system folder {SYSTEM_FOLDER}": lambda _: (SYSTEM_FOLDER,),
        "torchvision's download": _torchvision_download,
        f"Debian's package {PACKAGE}": _debian_package,
    }
    missing = dict(checksums)
    failures = []
    for label, find_folders in sources.items():
        try:
            folders = find_folders(scratch)
            if not any(_candidates(name, folders) for name in missing):
                raise DataUnavailableError("it has none of the missing files")
            reasons = {name: _take(name, checksum, folders, raw, scratch) for name, checksum in missing.items()}
            problems = {name: reason for name, reason in reasons.items() if reason}
        except DataUnavailableError as error:
            problems = dict.fromkeys(missing, str(error))
        if not problems:
            log.info("Fashion-MNIST: %s verified from %s", ", ".join(missing), label)
            return
        failures.append(f"{label}: {'; '.join(dict.fromkeys(problems.values()))}")
        log.warning("Fashion-MNIST: %s", failures[-1])
        missing = {name: missing[name] for name in problems}
    lines = [f"Fashion-MNIST is not available, no source has {', '.join(missing)}:", *failures]
    advice = f"Install Debian's package (apt install {PACKAGE}), or put {', '.join(checksums)} (plain or .gz)"
    advice += f" into {raw}, or give a folder that holds them by data.root=..."
    raise DataUnavailableError("\n  ".join(lines) + "\n" + advice)


def _torchvision_download(scratch: Path) -> tuple[Path, ...]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        from torchvision.datasets import FashionMNIST

        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            FashionMNIST(str(scratch), download=True)
    except Exception as error:  # proxies and servers cause errors of many kinds; the next source is tried
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # a full disk would fail every source
        raise DataUnavailableError(" ".join(str(error).split()) or type(error).__name__) from error
    finally:
        socket.setdefaulttimeout(before)
    return (scratch / "FashionMNIST" / "raw",)


def _debian_package(scratch: Path) -> tuple[Path, ...]:
    if missing := [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]:
        raise DataUnavailableError(f"no {' and no '.join(missing)} here")
    # As root, apt would download as another user, who may have no access to this folder.
    apt = ["apt-get", "-qq", "-oAPT::Sandbox::User=root", "-oAPT::Update::Error-Mode=any"]
    apt += ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=10"]
    try:
        _run(scratch, *apt, "download", PACKAGE)
    except DataUnavailableError:  # perhaps for missing or old package lists; lists in a folder of ours need no root
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
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr]
        raise DataUnavailableError(f"{command[0]} failed ({done.returncode}): {errors[0].strip()[:300]}")


def _take(name: str, checksum: str, folders: tuple[Path, ...], raw: Path, scratch: Path) -> str:
    """Put a file in place, and return "", or what is wrong with it in all folders."""
    reasons = []
    for path in _candidates(name, folders):
        try:
            data = _verified(path, checksum)
        except DataUnavailableError as error:
            reasons.append(str(error))
            continue
        if path != raw / name:
            _write(data, raw / name, scratch)
        return ""
    return ", ".join(reasons) or f"{name} missing"


def _candidates(name: str, folders: tuple[Path, ...]) -> list[Path]:
    """Return the plain and .gz files with that name."""
    paths = [path for folder in folders for path in (folder / name, folder / f"{name}.gz")]
    return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 - Path.is_file raises in a closed folder


def _verified(path: Path, checksum: str) -> bytes:
    """Return the uncompressed contents of a file that must have the checksum."""
    data = _read(path, LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise DataUnavailableError(f"{path} damaged (more than {LARGEST_FILE:,} bytes)")
    found = hashlib.sha256(data).hexdigest()
    if found != checksum:
        raise DataUnavailableError(
            f"{path} damaged ({len(data):,} bytes, SHA-256 {found[:9]}..., not {checksum[:9]}...)"
        )
    return data


def _read(path: Path, limit: int = -1) -> bytes:
    """Return the first `limit` bytes of the uncompressed contents; all of them by default."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnavailableError(f"{path} unreadable ({error})") from error


def _write(data: bytes, target: Path, scratch: Path) -> None:
    """Write a file so that `target` is complete whenever it exists."""
    with (scratch / target.name).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    (scratch / target.name).replace(target)


@contextlib.contextmanager
def _locked(root: Path, raw: Path) -> Iterator[Path]:
    """Lock `root`, and yield an empty scratch folder on the file system of `raw`."""
    scratch = raw / ".incoming"
    try:
        raw.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".fmnist.lock")
        try:
            held = lock.acquire(timeout=LOCK_NOTICE)
        except Timeout:
            log.info("Fashion-MNIST: waiting for another process that is preparing data.root=%s", root)
            held = lock.acquire(timeout=LOCK_TIMEOUT)
        with held:
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:  # also filelock's Timeout
        raise DataUnavailableError(f"data.root={root} cannot be written to: {error}") from error


def _own_files(root: Path, raw: Path) -> dict[str, str]:
    found = {name: _candidates(name, (raw, root)) for name in CHECKSUMS}
    if missing := [name for name, paths in found.items() if not paths]:
        raise DataUnavailableError(f"data.root={root} has no {', no '.join(missing)} (plain or .gz, there or in {raw})")
    contents = {name: _read(paths[0]) for name, paths in found.items()}
    counts = {name: _count(found[name][0], data) for name, data in contents.items()}
    if list(counts.values())[::2] != list(counts.values())[1::2]:
        raise DataUnavailableError(f"data.root={root}: must hold as many images as labels, but holds {counts}")
    if elsewhere := [name for name, paths in found.items() if paths[0] != raw / name]:
        with _locked(root, raw) as scratch:
            for name in elsewhere:
                _write(contents[name], raw / name, scratch)
    log.info("Fashion-MNIST: the files in data.root=%s are used unverified", root)
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def _count(path: Path, data: bytes) -> int:
    """Return how many 28x28 images or labels a well-formed IDX file holds (magic number, dimensions, data)."""
    count = int.from_bytes(data[4:8])
    header, item = b"\0\0\x08\x01" + data[4:8], 1
    if "images" in path.name:
        header, item = b"\0\0\x08\x03" + data[4:8] + b"\0\0\0\x1c" * 2, 28 * 28
    if not count or not data.startswith(header) or len(data) != len(header) + count * item:
        raise DataUnavailableError(f"{path} is no complete IDX file of 28x28 images or labels ({len(data):,} bytes)")
    if item == 1 and max(data[8:]) > 9:
        raise DataUnavailableError(f"{path} has the label {max(data[8:])}, which is not in 0..9")
    return count
