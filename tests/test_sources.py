"""The sources of the data, offline: four small files, a fake apt, and servers on this machine only."""

import builtins
import errno
import fcntl
import gzip
import hashlib
import http.server
import io
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import FashionMNIST

from fmnist.data import downloads, idx, sources
from fmnist.data.idx import DataUnavailableError
from fmnist.data.sources import load_files

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = tuple(sources.CHECKSUMS)
Lines = Callable[[], list[str]]


def images(count: int, seed: int) -> bytes:
    pixels = random.Random(seed).randbytes(count * 784)
    return bytes([0, 0, 8, 3]) + count.to_bytes(4) + bytes([0, 0, 0, 28] * 2) + pixels


def labels(count: int) -> bytes:
    return bytes([0, 0, 8, 1]) + count.to_bytes(4) + bytes(i % 10 for i in range(count))


FILES = {TRAIN_IMAGES: images(30, 1), TRAIN_LABELS: labels(30), TEST_IMAGES: images(20, 2), TEST_LABELS: labels(20)}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def write(folder: Path, packed: bool = True, changed: Mapping[str, bytes] | None = None) -> Path:
    """Write the four files, some of them with other contents (as they are on disk)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        data = gzip.compress(content) if packed else content
        (folder / (f"{name}.gz" if packed else name)).write_bytes((changed or {}).get(name, data))
    return folder


def raw_of(root: Path) -> Path:
    return root / "FashionMNIST" / "raw"


def assert_loaded(root: Path, checksums: Mapping[str, str] = SUMS) -> None:
    """Load the four files, and check their contents and hashes."""
    files = load_files(root, checksums)
    assert {name: file.data for name, file in files.items()} == FILES
    assert {name: file.sha256 for name, file in files.items()} == SUMS


def assert_in_place(root: Path) -> None:
    """Check that the four files are right and nothing else was left beside them."""
    assert {path.name: path.read_bytes() for path in raw_of(root).iterdir() if path.suffix != ".gz"} == FILES


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(root: Path, checksums: Mapping[str, str] = SUMS) -> str:
    """Return the one line with which the files are refused."""
    with pytest.raises(DataUnavailableError) as caught:
        load_files(root, checksums)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my data"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Return the system's folder, which doesn't exist yet."""
    return tmp_path / "system"


@pytest.fixture(autouse=True)
def no_source(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every source fail, and at once, until a test sets one up."""
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", system)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{closed.getsockname()[1]}/"])


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return what has been logged since the last call, each line as `LEVEL text`, without the common prefix."""
    caplog.set_level(logging.INFO, logger="fmnist.data.sources")

    def take() -> list[str]:
        found = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
        caplog.clear()
        assert all(" Fashion-MNIST: " in line and "\n" not in line for line in found)
        return [line.replace(" Fashion-MNIST: ", " ") for line in found]

    return take


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder from which torchvision downloads, and return it."""
    folder = write(tmp_path / "mirror")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    md5 = {name: hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(FashionMNIST, "resources", [(f"{name}.gz", md5[name]) for name in NAMES])
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


class Apt:
    """A fake apt-get and dpkg-deb; the "package" is a file, the folder `contents` is what it unpacks to."""

    def __init__(self, folder: Path) -> None:
        self.contents = write(folder / "contents")
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        package = "dataset-fashion-mnist"
        self.program("apt-get", f'case "$*" in *" download {package}") : >{package}_1_all.deb;; esac')
        unpacked = '"$3/usr/share/datasets/fashion-mnist"'
        self.program("dpkg-deb", f'[ -e "$2" ] && mkdir -p {unpacked} && cp "{self.contents}"/* {unpacked}')

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "{name} $*" >>"{self.calls}"\n{script}\n')
        path.chmod(0o755)

    def commands(self) -> list[str]:
        """Return the commands so far, without their options."""
        called = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [" ".join(word for word in line.split()[:2] + line.split()[-2:] if word[0] != "-") for line in called]


@pytest.fixture
def apt(tmp_path: Path) -> Apt:
    return Apt(tmp_path)


def test_the_sources_are_tried_in_order_and_one_line_names_the_one_that_has_the_files(
    root: Path, system: Path, mirror: Path, apt: Apt, lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    def origin() -> str:
        assert_loaded(root)
        assert_in_place(root)
        (line,) = lines()
        return line

    everything = "4 files"
    write(system)
    assert origin() == f"INFO {everything} verified from system folder {system}"
    assert origin() == f"INFO 4 verified files in data.root={root}"
    for path in (*raw_of(root).iterdir(), *system.iterdir()):
        path.unlink()
    assert origin() == f"INFO {everything} verified from torchvision's download"
    assert apt.commands() == []
    for path in raw_of(root).iterdir():
        path.unlink()
    for path in mirror.iterdir():
        path.write_bytes(b"?")
    assert origin() == f"INFO {everything} verified from Debian's package dataset-fashion-mnist"
    assert sorted(path.name for path in root.iterdir()) == [".fmnist.lock", "FashionMNIST"]
    assert capfd.readouterr() == ("", "")


def test_files_of_several_sources_are_named_in_one_line(root: Path, system: Path, apt: Apt, lines: Lines) -> None:
    write(system)
    (system / f"{TEST_LABELS}.gz").unlink()
    assert_loaded(root)
    others = ", ".join(name for name in NAMES if name != TEST_LABELS)
    package = f"{TEST_LABELS} verified from Debian's package dataset-fashion-mnist"
    assert lines() == [f"INFO {others} verified from system folder {system}; {package}"]
    assert len(apt.commands()) == 2


BROKEN = {
    "empty": b"",
    "truncated": FILES[TEST_IMAGES][:-1],
    "too long": FILES[TEST_IMAGES] + b"?",
    "other type": b"\0\0\x0d\3" + FILES[TEST_IMAGES][4:],
    "no IDX": b"<html>Not found</html>",
}


@pytest.mark.parametrize("content", [None, *BROKEN.values()], ids=["missing", *BROKEN])
def test_only_a_bad_file_is_fetched_again_and_is_set_aside(
    root: Path, system: Path, lines: Lines, content: bytes | None
) -> None:
    raw = write(raw_of(root), packed=False, changed={TEST_IMAGES: content or b""})
    if content is None:
        (raw / TEST_IMAGES).unlink()
    write(system)
    (raw / f"{TEST_IMAGES}.damaged").write_text("of an earlier day")
    good = {name: (raw / name).stat().st_ino for name in NAMES if name != TEST_IMAGES}
    assert_loaded(root)
    assert {name: (raw / name).stat().st_ino for name in good} == good
    aside = raw / f"{TEST_IMAGES}.damaged2"
    earlier = {f"{TEST_IMAGES}.damaged": b"of an earlier day"}
    assert contents(raw) == FILES | earlier | ({} if content is None else {aside.name: content})
    *told, fetched = lines()
    if content is None:
        assert told == []
    else:
        reason = f"damaged (no complete IDX file, {len(content):,} bytes)"
        assert told == [f"WARNING {raw / TEST_IMAGES} is {reason}; it is now {aside.name}"]
    assert fetched == f"INFO {TEST_IMAGES} verified from system folder {system}"


OTHER = {
    "Fashion-MNIST's other images": FILES[TRAIN_IMAGES],
    "as many images": images(20, 3),
    "one pixel": FILES[TEST_IMAGES][:-1] + b"?",
    "larger images": bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0, 32]) + bytes(1024),
    "float32": bytes([0, 0, 13, 1, 0, 0, 0, 2]) + bytes(8),
    "too large": bytes([0, 0, 8, 1]) + (50_000).to_bytes(4) + bytes(50_000),
}


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_files_of_another_data_set_are_refused_and_stay(
    root: Path, system: Path, monkeypatch: pytest.MonkeyPatch, place: str, packed: bool, content: bytes
) -> None:
    monkeypatch.setattr(idx, "LARGEST_FILE", 40_000)
    write(system)
    write(root / place, packed, changed={TEST_IMAGES: gzip.compress(content) if packed else content})
    before = contents(root)
    line = refusal(root)
    assert line.startswith(f"{root / place / TEST_IMAGES}{'.gz' if packed else ''} is ")
    assert f"data=idx data.root={root} trains on files of your own" in line
    assert "another folder by data.root=<folder>" in line
    assert contents(root) == before


def test_a_good_file_beside_one_of_another_data_set_is_taken(root: Path) -> None:
    raw = write(write(raw_of(root)), packed=False, changed={TEST_IMAGES: images(20, 3)})
    before = contents(raw)
    assert_loaded(root)
    assert contents(raw) == before


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_a_complete_folder_is_only_read(
    root: Path,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    packed: bool,
) -> None:
    """As on a read-only file system, which stops root, too."""
    write(root / place, packed)
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: refuse() if flags & 3 else opened(path, flags, *rest))
    for function in ("mkdir", "rename", "replace", "unlink"):
        monkeypatch.setattr(Path, function, refuse)
    assert_loaded(root)
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before
    unpacked = " (.gz, unpacked in memory)" if packed else ""
    assert lines() == [f"INFO 4 verified files in data.root={root}{unpacked}"]


PASSING = [
    *(OSError(code, os.strerror(code)) for code in (errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE)),
    MemoryError(),
]


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("function", ["stat", "open", "read"])
@pytest.mark.parametrize("error", PASSING, ids=lambda error: getattr(error, "strerror", None) or "memory")
def test_a_file_that_cannot_be_read_now_is_neither_missing_nor_damaged(
    root: Path,
    system: Path,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    function: str,
    packed: bool,
) -> None:
    write(system)
    raw = write(raw_of(root), packed)
    before = contents(root)
    file = raw / f"{TEST_IMAGES}{'.gz' if packed else ''}"
    original = {"stat": Path.stat, "open": io.open, "read": io.open}[function]

    class Unreadable(io.FileIO):
        def readinto(self, _: object) -> int:
            raise error

        def readall(self) -> bytes:
            raise error

    def fail(path: Path | str, *rest: Any, **options: Any) -> Any:
        if Path(path) != file:
            return original(path, *rest, **options)
        if function == "read":
            return io.BufferedReader(Unreadable(path))
        raise error

    if function == "stat":
        monkeypatch.setattr(Path, "stat", fail)
    else:
        monkeypatch.setattr(io, "open", fail)
        monkeypatch.setattr(builtins, "open", fail)
    line = refusal(root)
    monkeypatch.undo()
    reason = getattr(error, "strerror", None) or "too little memory"
    assert line == f"{file} can't be read: {reason}; it is left as it is"
    assert lines() == []
    assert contents(root) == before


PACKED = gzip.compress(FILES[TRAIN_IMAGES])
BAD_GZ = {
    "truncated": (PACKED[:-100], "damaged (Compressed file ended before"),
    "crc": (PACKED[:-8] + bytes(8), "damaged (CRC check failed"),
    "stream": (PACKED[:10] + b"\xff" * 500, "damaged (Error -3 while decompressing"),
    "no gzip": (FILES[TRAIN_IMAGES], "damaged (Not a gzipped file"),
    "empty": (b"", "damaged (no complete IDX file, 0 bytes)"),
    "other file": (gzip.compress(FILES[TEST_IMAGES]), "an IDX file, but not Fashion-MNIST's (SHA-256 "),
    "bomb": (gzip.compress(bytes(50_000_000)), "none of Fashion-MNIST's files (more than 3,000,000 bytes)"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_GZ.values(), ids=BAD_GZ)
def test_a_bad_gz_of_a_source_is_not_taken_and_named_where_no_other_has_it(
    root: Path, system: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(idx, "LARGEST_FILE", 3_000_000)
    write(system, changed={TRAIN_IMAGES: content})
    assert f"system folder {system} ({system / TRAIN_IMAGES}.gz is {reason}" in refusal(root)
    assert not (raw_of(root) / TRAIN_IMAGES).exists()


@pytest.mark.usefixtures("apt")
def test_the_next_source_is_tried_for_a_bad_file(root: Path, system: Path, lines: Lines) -> None:
    write(system, changed={TRAIN_IMAGES: PACKED[:-100]})
    assert_loaded(root)
    assert_in_place(root)
    (line,) = lines()
    assert line.endswith(f"; {TRAIN_IMAGES} verified from Debian's package dataset-fashion-mnist")


def test_a_damaged_gz_of_the_user_stays_where_it_is(root: Path, system: Path) -> None:
    write(system)
    write(root, changed={TRAIN_IMAGES: PACKED[:-100]})
    before = contents(root)
    assert_loaded(root)
    assert contents(root) == before | {f"FashionMNIST/raw/{TRAIN_IMAGES}": FILES[TRAIN_IMAGES], ".fmnist.lock": b""}


PROGRAM = """if True:
    import json, logging, sys, time
    from pathlib import Path
    from fmnist.data import sources
    root, system, sums, go = sys.argv[1:]
    logging.basicConfig(level="INFO")
    sources.SYSTEM_FOLDER, sources.LOCK_NOTICE = Path(system), 0.1
    rename = Path.rename
    def slow(file, target):
        print("copying", file=sys.stderr, flush=True)
        while not Path(go).exists():
            time.sleep(0.01)
        return rename(file, target)
    Path.rename = slow
    files = sources.load_files(Path(root), json.loads(sums))
    print(json.dumps({name: file.sha256 for name, file in files.items()}))
    assert "torch" not in sys.modules
"""


def started(root: Path, system: Path, log: Path, sign: str) -> subprocess.Popen[str]:
    """Start a process that gets the files, and wait until it logs the sign."""
    command = [sys.executable, "-c", PROGRAM, str(root), str(system), json.dumps(SUMS), str(log.parent / "go")]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    deadline = time.monotonic() + 30
    while sign not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    return process


def test_a_killed_attempt_leaves_nothing_that_is_used(root: Path, system: Path, tmp_path: Path) -> None:
    process = started(root, write(system), tmp_path / "log", "copying")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = raw_of(root).iterdir()
    assert left.name == f".{TRAIN_IMAGES}.{socket.gethostname()}.{process.pid}"
    assert_loaded(root)
    assert_in_place(root)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    root: Path, system: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Another process has stored a file meanwhile, and is about to store the next one."""
    write(system)

    def no_lock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    fetch = sources._fetch
    beside = raw_of(root) / f".{TEST_LABELS}.{socket.gethostname()}.1"

    def overtaken(*arguments: Any) -> dict[str, idx.DataFile]:
        beside.write_bytes(b"half")
        (raw_of(root) / TRAIN_IMAGES).write_bytes(FILES[TRAIN_IMAGES])
        return fetch(*arguments)

    monkeypatch.setattr(sources, "_fetch", overtaken)
    assert_loaded(root)
    assert lines() == [f"INFO 4 files verified from system folder {system}"]
    assert beside.read_bytes() == b"half"
    beside.unlink()
    assert_in_place(root)


def test_a_lock_that_is_held_too_long(root: Path, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(system)
    root.mkdir()
    monkeypatch.setattr(sources, "LOCK_NOTICE", 0.0)
    monkeypatch.setattr(sources, "LOCK_TIMEOUT", 0.06)
    with (root / ".fmnist.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        line = refusal(root)
    assert line.startswith(f"data.root={root}: another process has held {root}/.fmnist.lock for 0.001 minutes: end it")


def test_a_second_process_waits_for_the_first(root: Path, system: Path, tmp_path: Path) -> None:
    write(system)
    logs = [tmp_path / "first", tmp_path / "second"]
    running: list[subprocess.Popen[str]] = []
    try:
        for log, sign in zip(logs, ("copying", "waiting for another process"), strict=True):
            running.append(started(root, system, log, sign))
        (tmp_path / "go").touch()
        results = [json.loads(process.communicate(timeout=30)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert results == [SUMS, SUMS]
    assert_in_place(root)
    assert "verified from system folder" in logs[0].read_text()
    assert "copying" not in logs[1].read_text()


def test_when_every_source_fails_one_line_says_what_was_tried_and_what_to_do(
    root: Path, system: Path, lines: Lines
) -> None:
    raw = write(raw_of(root), packed=False, changed={TRAIN_LABELS: b""})
    write(system, changed={TRAIN_LABELS: b"?"})
    for missing in (system / f"{TEST_LABELS}.gz", raw / TEST_LABELS):
        missing.unlink()
    before = contents(raw)
    line = refusal(root)
    damaged = f"{raw / TRAIN_LABELS} is damaged (no complete IDX file, 0 bytes)"
    packed = f"{system / TRAIN_LABELS}.gz is damaged (Not a gzipped file (b'?'))"
    assert line == (
        f"Fashion-MNIST: no source has {TRAIN_LABELS}, {TEST_LABELS}. Tried: data.root={root} ({damaged}; no "
        f"{TEST_LABELS}), system folder {system} ({packed}; no {TEST_LABELS}), torchvision's download "
        f"({FashionMNIST.mirrors[0]}: Connection refused), Debian's package dataset-fashion-mnist (no apt-get and no "
        "dpkg-deb here). Connect to the internet, install Debian's package (apt install dataset-fashion-mnist), put "
        f"the files (plain or .gz) into {raw}, or give a folder that holds them by data.root=<folder>"
    )
    assert lines() == []
    assert contents(raw) == before


def test_other_files_are_not_taken_for_the_published_ones(root: Path) -> None:
    write(root)
    before = contents(root)
    with pytest.raises(
        DataUnavailableError, match=f"^{root / TRAIN_IMAGES}.gz is an IDX file, but not Fashion-MNIST's"
    ):
        load_files(root)
    assert contents(root) == before


def test_a_server_that_never_answers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SOCKET_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{mute.getsockname()[1]}/"])
        start = time.monotonic()
        line = refusal(root)
    assert time.monotonic() - start < 5
    assert f"torchvision's download ({FashionMNIST.mirrors[0]}: timed out)" in line
    assert socket.getdefaulttimeout() is None


def test_apt_without_package_lists_downloads_its_own(root: Path, apt: Apt) -> None:
    script = """
        for word; do case "$word" in -oDir::State::Lists=*) lists=${word#*=};; esac; done
        case "$*" in
            *" update") [ -d "$lists/partial" ] && : >"$lists/fresh";;
            *" download dataset-fashion-mnist")
                [ -e "$lists/fresh" ] || { echo "E: Unable to locate package" >&2; exit 100; }
                : >dataset-fashion-mnist_1_all.deb;;
        esac"""
    apt.program("apt-get", script)
    assert_loaded(root)
    assert_in_place(root)
    first, update, second, unpack = apt.commands()
    assert first == second == "apt-get download dataset-fashion-mnist"
    assert update.endswith("update")
    assert unpack.startswith("dpkg-deb")


@pytest.mark.parametrize(
    ("program", "script", "reason"),
    [
        ("apt-get", "echo 'W: hm' >&2; echo 'E: No such repository' >&2; exit 100", "apt-get failed (100): E: No such"),
        ("apt-get", "exec sleep 30", "apt-get took more than 0.5 seconds"),
        ("apt-get", "exit 0", "it has none of them"),
        ("dpkg-deb", "echo 'dpkg-deb: error: not a package' >&2; exit 2", "failed (2): dpkg-deb: error: not a package"),
    ],
)
def test_apt_fails(
    root: Path, apt: Apt, monkeypatch: pytest.MonkeyPatch, program: str, script: str, reason: str
) -> None:
    monkeypatch.setattr(downloads, "COMMAND_TIMEOUT", 0.5)
    apt.program(program, script)
    _, _, line = refusal(root).partition("Debian's package dataset-fashion-mnist (")
    assert reason in line


@pytest.mark.parametrize("blocked", [".", "FashionMNIST", ".fmnist.lock"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_fetched(
    root: Path, system: Path, apt: Apt, lines: Lines, blocked: str
) -> None:
    """A file is in the place of a folder, or a folder in that of a file, which also stops root."""
    write(system)
    path = root / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    if blocked == ".fmnist.lock":
        path.mkdir()
    else:
        path.write_bytes(b"")
    line = refusal(root)
    assert line.startswith(f"data.root={root} cannot be written to: ")
    assert f"; it has no undamaged {', '.join(NAMES)}: give another folder by data.root=<folder>" in line
    assert lines() == []
    assert apt.commands() == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_not_replaced(root: Path, system: Path, kind: str) -> None:
    write(system)
    path = raw_of(root) / TEST_LABELS
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "folder" else path.symlink_to("a disk that is not mounted")
    assert refusal(root) == f"{path} is no file, or a link to none: move it away"
    assert [*path.parent.iterdir()] == [path]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk(root: Path, system: Path, apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    write(system)
    raw = write(raw_of(root), packed=False, changed={TEST_LABELS: b""})
    before = contents(raw)
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode, *rest: full() if mode == "xb" else opened(path, mode, *rest))
    line = refusal(root)
    assert line.startswith(f"data.root={root} cannot be written to: [Errno 28] No space left on device; ")
    assert contents(raw) == before
    assert apt.commands() == []


@pytest.mark.usefixtures("mirror")
def test_a_full_disk_of_downloads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FashionMNIST, "download", full)
    reason = "[Errno 28] No space left on device (TMPDIR=<folder> names the folder of downloads)"
    assert f"torchvision's download ({reason}), " in refusal(root)
