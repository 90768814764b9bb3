"""The four Fashion-MNIST files: found on the machine or downloaded, and verified by their contents.

A folder that has all four is only read, plain or .gz. Missing files are stored uncompressed in
`root/FashionMNIST/raw/`, where `torchvision.datasets.FashionMNIST` looks for them, too.
"""

import contextlib
import errno
import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fmnist.data import idx
from fmnist.data.downloads import PACKAGE, PACKAGE_FOLDER, debian_package, torchvision_download
from fmnist.data.idx import DamagedFileError, DataFile, DataUnavailableError, OtherDataError

log = logging.getLogger(__name__)

# SHA-256 of the uncompressed files. Debian compresses them again: its .gz files differ from the original ones, of which
# torchvision knows the MD5, but their contents are the same.
CHECKSUMS: Mapping[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SYSTEM_FOLDER = Path("/", PACKAGE_FOLDER)
LOCK_NOTICE, LOCK_TIMEOUT = 2.0, 1800.0  # seconds of waiting for another process until it is logged, and until it fails
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # of a file system without them

Problems = dict[str, list[DataUnavailableError]]
"""What is wrong with the files of a name, by name; nothing where there is none."""


@dataclass(frozen=True)
class UserFolder:
    """The folder that the user gives, and the key that names it."""

    key: str
    root: Path
    subfolder: str = "FashionMNIST/raw"
    """Where torchvision keeps the files."""
    title: str = "Fashion-MNIST"

    @property
    def raw(self) -> Path:
        return self.root / self.subfolder

    def __str__(self) -> str:
        return f"{self.key}={self.root}"


def load_files(root: Path, checksums: Mapping[str, str] = CHECKSUMS, key: str = "data.root") -> dict[str, DataFile]:
    """Return the four files by name. Missing and damaged ones are fetched and stored.

    Several processes may call it at once.

    Args:
        root: folder of the files.
        checksums: SHA-256 of the uncompressed files, by name.
        key: what the user types to give another folder.

    Raises:
        DataUnavailableError: if no source has a file, one must be written to `root` and can't be, or one there can't be
            read or is another data set's. That file stays as it is.
    """
    folder = UserFolder(key, root.absolute())
    files, missing = _look_in(folder, checksums)  # before the lock, as a complete folder may be read-only
    if missing:
        with locked(folder, missing):
            more, missing = _look_in(folder, {name: checksums[name] for name in missing})  # filled by another process?
            files |= more
            if missing:
                files |= _fetch(folder, {name: checksums[name] for name in missing}, _reason(missing))
                return {name: files[name] for name in checksums}
    packed = " (.gz, unpacked in memory)" if any(file.path.suffix == ".gz" for file in files.values()) else ""
    log.info("Fashion-MNIST: %d verified files in %s%s", len(files), folder, packed)
    return {name: files[name] for name in checksums}


def check_root(key: str, root: object) -> None:
    """Check that a run's data folder exists on this machine, before anything is created in its place.

    Raises:
        DataUnavailableError: naming the key that sets another folder.
    """
    if isinstance(root, str) and not Path(root).is_dir():
        raise DataUnavailableError(f"the run's data folder {root} isn't here: {key}=<folder> says where its files are")


def _look(checksums: Mapping[str, str], *folders: Path) -> tuple[dict[str, DataFile], Problems]:
    """Return the files that have their checksums, and what is wrong with those of the other names."""
    files: dict[str, DataFile] = {}
    problems: Problems = {name: [] for name in checksums}
    for name, checksum in checksums.items():
        for path in idx.find(name, *folders):
            try:
                files[name] = idx.read_verified(path, checksum)
                break
            except DataUnavailableError as error:
                problems[name].append(error)
    return files, {name: found for name, found in problems.items() if name not in files}


def _look_in(folder: UserFolder, checksums: Mapping[str, str]) -> tuple[dict[str, DataFile], Problems]:
    """Return the user's files that have their checksums, and those of the others that are missing or damaged.

    Raises:
        DataUnavailableError: if a file can't be read or is another data set's: it must not be replaced.
    """
    files, problems = _look(checksums, folder.raw, folder.root)
    for problem in itertools.chain(*problems.values()):
        if isinstance(problem, OtherDataError):
            raise OtherDataError(
                f"{problem}: it stays as it is; data=idx data.root={folder.root} trains on files of your own; "
                f"for Fashion-MNIST give another folder by {folder.key}=<folder>, or move the file away"
            )
        if not isinstance(problem, DamagedFileError):
            raise problem
    for path in (folder.raw / name for name in problems):
        if os.path.lexists(path) and not path.is_file():
            raise DataUnavailableError(f"{path} is no file, or a link to none: move it away")
    return files, problems


def _fetch(folder: UserFolder, missing: Mapping[str, str], reason: str) -> dict[str, DataFile]:
    """Return the missing files from the first sources that have them, and store them in the user's folder.

    Args:
        folder: the user's.
        missing: their checksums by name.
        reason: why they are missing there.

    Raises:
        DataUnavailableError: if no source has one of them.
    """
    sources: dict[str, Callable[[], contextlib.AbstractContextManager[Path]]] = {
        f"system folder {SYSTEM_FOLDER}": lambda: contextlib.nullcontext(SYSTEM_FOLDER),
        "torchvision's download": torchvision_download,
        f"Debian's package {PACKAGE}": debian_package,
    }
    files: dict[str, DataFile] = {}
    origins, failures = [], [f"{folder} ({reason})"]
    for source, opened in sources.items():
        found: dict[str, DataFile] = {}
        try:
            with opened() as place:
                found, problems = _look({name: missing[name] for name in missing if name not in files}, place)
            reason = _reason(problems)
        except DataUnavailableError as error:
            reason = " ".join(str(error).split())
        for name, file in found.items():
            _store(file, folder.raw / name)
        files |= found
        named = f"{len(found)} files" if len(found) == len(CHECKSUMS) else ", ".join(found)
        origins += [f"{named} verified from {source}"] if found else []
        if len(files) == len(missing):
            log.info("Fashion-MNIST: %s", "; ".join(origins))
            return files
        failures.append(f"{source} ({reason})")
    raise DataUnavailableError(
        f"Fashion-MNIST: no source has {', '.join(name for name in missing if name not in files)}. "
        f"Tried: {', '.join(failures)}. Connect to the internet, install Debian's package (apt install {PACKAGE}), "
        f"put the files (plain or .gz) into {folder.raw}, or give a folder that holds them by {folder.key}=<folder>"
    )


def _reason(problems: Problems) -> str:
    """Return why files are missing in a place."""
    absent = [name for name, found in problems.items() if not found]
    if len(absent) == len(problems):
        return "it has none of them"
    return "; ".join([*map(str, itertools.chain(*problems.values())), *(f"no {name}" for name in absent)])


def _store(file: DataFile, target: Path) -> None:
    """Write a file so that `target` is complete whenever it exists. A damaged one in its place gets another name."""
    temporary = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # it may be a link that somebody else made
    try:
        with temporary.open("xb") as stream:
            stream.write(file.data)
        if target.is_file():
            idx.read_verified(target, file.sha256)  # of another process, where the file system has no locks
        else:
            temporary.rename(target)
    except DamagedFileError as error:
        log.warning("Fashion-MNIST: %s; it is now %s", error, _set_aside(target).name)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _set_aside(path: Path) -> Path:
    """Give a file a new name, and return that."""
    numbers = itertools.chain([""], itertools.count(2))
    names = (path.with_name(f"{path.name}.damaged{number}") for number in numbers)
    return path.rename(next(name for name in names if not os.path.lexists(name)))


@contextlib.contextmanager
def locked(folder: UserFolder, missing: Iterable[str]) -> Iterator[None]:
    """Let one process at a time fill the folder, if its file system has locks."""
    try:
        folder.raw.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.root / ".fmnist.lock")
        with _acquired(lock, folder):
            if lock.is_locked:
                for left in folder.raw.glob(f".*.{socket.gethostname()}.*"):  # of a process that was killed
                    left.unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise DataUnavailableError(
            f"{folder}: another process has held {error.lock_file} for {LOCK_TIMEOUT / 60:g} minutes: end it, or give "
            f"another folder by {folder.key}=<folder>"
        ) from error
    except OSError as error:
        raise DataUnavailableError(
            f"{folder} cannot be written to: {error}; it has no undamaged {', '.join(missing)}: give another folder by "
            f"{folder.key}=<folder>"
        ) from error


def _acquired(lock: BaseFileLock, folder: UserFolder) -> contextlib.AbstractContextManager[object]:
    """Return a lock that is held; nothing to hold where the file system has no locks."""
    try:
        try:
            return lock.acquire(timeout=LOCK_NOTICE)
        except Timeout:
            log.info("%s: waiting for another process that is preparing %s", folder.title, folder)
            return lock.acquire(timeout=LOCK_TIMEOUT)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return contextlib.nullcontext()
