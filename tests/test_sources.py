"""The sources of the data, offline: four small files, a fake apt, and servers on this machine only."""

import errno
import gzip
import hashlib
import http.server
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

from fmnist.data import sources
from fmnist.data.sources import DataUnavailableError, ensure_files

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


def assert_in_place(root: Path) -> None:
    """Check that the four files are right and nothing else was left beside them."""
    assert {path.name: path.read_bytes() for path in raw_of(root).iterdir() if path.suffix != ".gz"} == FILES


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


def test_the_sources_are_tried_in_order_with_one_line_each(
    root: Path, system: Path, mirror: Path, apt: Apt, lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    everything, none = ", ".join(NAMES), "it has none of the missing files"
    root_line, system_line = f"WARNING data.root={root}: {none}", f"WARNING system folder {system}: {none}"

    def ensured() -> list[str]:
        assert ensure_files(root, SUMS) == SUMS
        assert_in_place(root)
        return lines()

    write(system)
    assert ensured() == [root_line, f"INFO {everything} verified from system folder {system}"]
    assert ensured() == [f"INFO 4 verified files in data.root={root}"]
    for path in (*raw_of(root).iterdir(), *system.iterdir()):
        path.unlink()
    assert ensured() == [root_line, system_line, f"INFO {everything} verified from torchvision's download"]
    assert apt.commands() == []
    assert capfd.readouterr() == ("", "")
    for path in raw_of(root).iterdir():
        path.unlink()
    for path in mirror.iterdir():
        path.write_bytes(b"?")
    *earlier, torchvision_line, last = ensured()
    assert earlier == [root_line, system_line]
    assert torchvision_line.startswith("WARNING torchvision's download: Error downloading train-images")
    assert torchvision_line.endswith("File not found or corrupted.")
    assert last == f"INFO {everything} verified from Debian's package dataset-fashion-mnist"
    assert sorted(path.name for path in root.iterdir()) == [".fmnist.lock", "FashionMNIST"]


@pytest.mark.parametrize(
    "content",
    [None, b"", FILES[TEST_IMAGES][:-1] + b"?", FILES[TRAIN_IMAGES]],
    ids=["missing", "empty", "damaged", "swapped"],
)
def test_only_a_bad_file_is_fetched_again(root: Path, system: Path, lines: Lines, content: bytes | None) -> None:
    raw = write(raw_of(root), packed=False, changed={TEST_IMAGES: content or b""})
    if content is None:
        (raw / TEST_IMAGES).unlink()
    write(system)
    good = {name: (raw / name).stat().st_ino for name in NAMES if name != TEST_IMAGES}
    assert ensure_files(root, SUMS) == SUMS
    assert_in_place(root)
    assert {name: (raw / name).stat().st_ino for name in good} == good
    bad, fetched = lines()
    assert TEST_IMAGES in bad
    assert not any(name in bad for name in good)
    assert fetched == f"INFO {TEST_IMAGES} verified from system folder {system}"


@pytest.mark.parametrize("checksums", [SUMS, None], ids=["verified", "own"])
@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_files_may_lie_in_either_folder_of_root(
    root: Path, lines: Lines, place: str, packed: bool, checksums: dict[str, str] | None
) -> None:
    write(root / place, packed)
    assert ensure_files(root, checksums) == SUMS
    assert_in_place(root)
    if checksums is None:
        assert lines() == [f"INFO the files in data.root={root} are used unverified"]


@pytest.mark.parametrize("checksums", [SUMS, None], ids=["verified", "own"])
def test_a_complete_folder_is_only_read(root: Path, checksums: dict[str, str] | None) -> None:
    write(raw_of(root), packed=False)
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}
    assert ensure_files(root, checksums) == SUMS
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before


PACKED = gzip.compress(FILES[TRAIN_IMAGES])
BAD_GZ = {
    "truncated": (PACKED[:-100], "unreadable (Compressed file ended before"),
    "crc": (PACKED[:-8] + bytes(8), "unreadable (CRC check failed"),
    "stream": (PACKED[:10] + b"\xff" * 500, "unreadable (Error -3 while decompressing"),
    "no gzip": (FILES[TRAIN_IMAGES], "unreadable (Not a gzipped file"),
    "empty": (b"", "damaged (0 bytes"),
    "other file": (gzip.compress(FILES[TEST_IMAGES]), "damaged (15,696 bytes"),
    "bomb": (gzip.compress(bytes(50_000_000)), "damaged (more than 3,000,000 bytes)"),
}


@pytest.mark.usefixtures("apt")
@pytest.mark.parametrize(("content", "reason"), BAD_GZ.values(), ids=BAD_GZ)
def test_a_bad_gz_of_a_source_is_named_and_the_next_source_tried(
    root: Path, system: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(sources, "LARGEST_FILE", 3_000_000)
    write(system, changed={TRAIN_IMAGES: content})
    assert ensure_files(root, SUMS) == SUMS
    assert_in_place(root)
    _, from_system, _, from_apt = lines()
    assert from_system.startswith(f"WARNING system folder {system}: {system / TRAIN_IMAGES}.gz {reason}")
    assert from_apt == f"INFO {TRAIN_IMAGES} verified from Debian's package dataset-fashion-mnist"


# A new process with sources.py alone, which starts much sooner than with the package.
ALONE = {**os.environ, "PYTHONPATH": str(Path(sources.__file__).parent)}
PROGRAM = """if True:
    import json, logging, os, sys, time
    from pathlib import Path
    import sources
    root, system, sums, go = sys.argv[1:]
    logging.basicConfig(level="INFO")
    sources.SYSTEM_FOLDER, sources.LOCK_NOTICE = Path(system), 0.1
    fsync = os.fsync
    def slow(file):
        fsync(file)
        print("copying", file=sys.stderr, flush=True)
        while not Path(go).exists():
            time.sleep(0.01)
    os.fsync = slow
    print(json.dumps(sources.ensure_files(Path(root), json.loads(sums))))
"""


def started(root: Path, system: Path, log: Path, sign: str) -> subprocess.Popen[str]:
    """Start a process that gets the files, and wait until it logs the sign."""
    command = [sys.executable, "-c", PROGRAM, str(root), str(system), json.dumps(SUMS), str(log.parent / "go")]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=ALONE, text=True)
    deadline = time.monotonic() + 30
    while sign not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    return process


def test_a_killed_attempt_leaves_nothing_that_is_used(root: Path, system: Path, tmp_path: Path) -> None:
    process = started(root, write(system), tmp_path / "log", "copying")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    scratch = raw_of(root) / ".incoming"
    assert [path.name for path in scratch.iterdir()] == [TRAIN_IMAGES]
    assert [path.name for path in raw_of(root).iterdir()] == [".incoming"]
    (scratch / "dataset-fashion-mnist_0_all.deb").write_bytes(b"half")
    assert ensure_files(root, SUMS) == SUMS
    assert_in_place(root)


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


def test_when_every_source_fails_one_message_says_why_and_what_to_do(root: Path, system: Path, lines: Lines) -> None:
    raw = write(raw_of(root), packed=False, changed={TRAIN_LABELS: b""})
    write(system, changed={TRAIN_LABELS: b"?"})
    for missing in (system / f"{TEST_LABELS}.gz", raw / TEST_LABELS):
        missing.unlink()
    with pytest.raises(DataUnavailableError, match=f"no source has {TRAIN_LABELS}, {TEST_LABELS}:") as caught:
        ensure_files(root, SUMS)
    _, *reasons, advice = str(caught.value).split("\n")
    expected = {
        f"data.root={root}": f"{TRAIN_LABELS} damaged (0 bytes, SHA-256 e3b0c4429..., not {SUMS[TRAIN_LABELS][:9]}...)",
        f"system folder {system}": f"{system / TRAIN_LABELS}.gz unreadable (",
        "torchvision's download": "Connection refused",
        "Debian's package dataset-fashion-mnist": "no apt-get and no dpkg-deb here",
    }
    for line, (source, reason) in zip(reasons, expected.items(), strict=True):
        assert line.startswith(f"  {source}: ")
        assert reason in line
    assert "apt install dataset-fashion-mnist" in advice
    assert f" (plain or .gz) into {raw}, or give a folder that holds them by data.root=..." in advice
    assert lines() == [f"WARNING {line.strip()}" for line in reasons]
    assert {path.name for path in raw.iterdir()} == {TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES}


def test_other_files_are_not_taken_for_the_published_ones(root: Path) -> None:
    write(root)
    with pytest.raises(DataUnavailableError, match=f"no source has {', '.join(NAMES)}:"):
        ensure_files(root)
    assert list(raw_of(root).iterdir()) == []


@pytest.mark.usefixtures("apt")
def test_a_server_that_never_answers(root: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SOCKET_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{mute.getsockname()[1]}/"])
        start = time.monotonic()
        ensure_files(root, SUMS)
    assert time.monotonic() - start < 5
    assert "timed out" in lines()[2]
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
    assert ensure_files(root, SUMS) == SUMS
    assert_in_place(root)
    first, update, second, unpack = apt.commands()
    assert first == second == "apt-get download dataset-fashion-mnist"
    assert update.endswith("update")
    assert unpack.startswith("dpkg-deb")


@pytest.mark.parametrize(
    ("program", "script", "reason"),
    [
        ("apt-get", "echo 'W: hm' >&2; echo 'E: No such repository' >&2; exit 100", "apt-get failed (100): E: No such"),
        ("apt-get", "exec sleep 30", "timed out after 0.5 seconds"),
        ("apt-get", "exit 0", "it has none of the missing files"),
        ("dpkg-deb", "echo 'dpkg-deb: error: not a package' >&2; exit 2", "failed (2): dpkg-deb: error: not a package"),
    ],
)
def test_apt_fails(
    root: Path, apt: Apt, monkeypatch: pytest.MonkeyPatch, program: str, script: str, reason: str
) -> None:
    monkeypatch.setattr(sources, "COMMAND_TIMEOUT", 0.5)
    apt.program(program, script)
    with pytest.raises(DataUnavailableError) as caught:
        ensure_files(root, SUMS)
    line = str(caught.value).split("\n")[4]
    assert line.startswith("  Debian's package dataset-fashion-mnist: ")
    assert reason in line


@pytest.mark.parametrize("blocked", [".", "FashionMNIST", "FashionMNIST/raw/.incoming", ".fmnist.lock"])
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
    with pytest.raises(DataUnavailableError) as caught:
        ensure_files(root, SUMS)
    assert str(caught.value).startswith(f"data.root={root} cannot be written to: ")
    assert "\n" not in str(caught.value)
    assert lines() == []
    assert apt.commands() == []


def test_a_full_disk(root: Path, system: Path, apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write(system)
    with pytest.raises(DataUnavailableError) as caught:
        ensure_files(root, SUMS)
    assert str(caught.value) == f"data.root={root} cannot be written to: [Errno 28] No space left on device"
    assert list(raw_of(root).iterdir()) == []
    assert apt.commands() == []


@pytest.mark.usefixtures("mirror", "apt")
def test_a_missing_own_file_is_not_fetched(root: Path, system: Path) -> None:
    write(root)
    write(system)
    (root / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(DataUnavailableError) as caught:
        ensure_files(root, checksums=None)
    raw = raw_of(root)
    assert str(caught.value) == f"data.root={root} has no {TEST_LABELS} (plain or .gz, there or in {raw})"
    assert not raw.exists()


NO_IDX = "is no complete IDX file of 28x28 images or labels"
WRONG = {
    "empty": (TEST_IMAGES, b"", f"{NO_IDX} (0 bytes)"),
    "labels for images": (TEST_IMAGES, FILES[TEST_LABELS], f"{NO_IDX} (28 bytes)"),
    "images for labels": (TEST_LABELS, FILES[TEST_IMAGES], f"{NO_IDX} (15,696 bytes)"),
    "not 28x28": (TEST_IMAGES, FILES[TEST_IMAGES][:11] + b"\x1d" + FILES[TEST_IMAGES][12:], f"{NO_IDX} (15,696 bytes)"),
    "too short": (TEST_IMAGES, FILES[TEST_IMAGES][:-1], f"{NO_IDX} (15,695 bytes)"),
    "too long": (TEST_LABELS, FILES[TEST_LABELS] + b"\0", f"{NO_IDX} (29 bytes)"),
    "no items": (TEST_LABELS, labels(0), f"{NO_IDX} (8 bytes)"),
    "label 10": (TEST_LABELS, FILES[TEST_LABELS][:-1] + b"\x0a", "has the label 10, which is not in 0..9"),
}


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize(("name", "content", "reason"), WRONG.values(), ids=WRONG)
def test_malformed_own_files_are_named(root: Path, name: str, content: bytes, reason: str, packed: bool) -> None:
    write(root, packed, changed={name: gzip.compress(content) if packed else content})
    with pytest.raises(DataUnavailableError) as caught:
        ensure_files(root, checksums=None)
    assert str(caught.value) == f"{root / name}{'.gz' if packed else ''} {reason}"
    assert not raw_of(root).exists()


def test_own_images_and_labels_must_be_equally_many(root: Path) -> None:
    write(root, packed=False, changed={TEST_LABELS: labels(21)})
    with pytest.raises(DataUnavailableError, match=f"must hold as many images as labels, but .*'{TEST_LABELS}': 21"):
        ensure_files(root, checksums=None)
