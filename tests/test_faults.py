"""Faults of the machine and of other programs: what the user sees, and what is left."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript
from PIL import Image
from processes import SCRIPT, STARTED, Started, start, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from test_train import record_of, rows_of

from fmnist import checkpoints
from fmnist.models.cnn import CNN

FULL = "No space left on device"


def only_run(done: Done) -> Path:
    (folder,) = done.folder.glob("outputs/*/*")
    return folder


def assert_whole(run: Path, step: int | None = None) -> None:
    """All files can be read, no half is left, and nobody holds the run."""
    names = {path.name for path in run.rglob("*")}
    assert not [name for name in names if name.startswith(".")]
    last = checkpoints.load(run / "checkpoints" / "last.ckpt")
    assert step in (None, last["global_step"])
    assert record_of(run)["seed"] == 0
    assert rows_of(run)


def assert_goes_on(run: Path, run_script: RunScript, steps: int = 20) -> None:
    """As if nothing had been."""
    resumed = run_script("train", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert resumed.err == ""
    assert record_of(run)["status"] == "finished"
    shown = EventAccumulator(str(run))
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss_step")] == [*range(4, steps, 5)]
    assert [int(row["epoch"]) for row in rows_of(run)] == [*range(steps // 10 + 1)]


def test_events_that_cannot_be_written_end_the_run_in_one_line(
    train: RunScript,
    run_script: RunScript,
    at_batch,
) -> None:
    def disk_full() -> None:
        def write(*_: object) -> None:
            raise OSError(errno.ENOSPC, FULL)

        patch.setattr(RecordWriter, "write", write)

    patch = at_batch(13, disk_full)
    done = train()
    run = only_run(done)
    done.assert_refused(f"{run}: {FULL}; once that is mended, go on with:  python scripts/train.py resume={run}")
    assert_whole(run, step=10)
    assert record_of(run)["status"] == "failed"
    patch.undo()
    assert_goes_on(run, run_script)


@pytest.mark.parametrize("file", [".last.ckpt", ".metrics.csv", ".metrics.json", ".run.json"])
def test_a_full_disk_leaves_whole_files_and_a_run_that_goes_on(
    train: RunScript,
    run_script: RunScript,
    at_batch,
    file: str,
) -> None:
    """Whichever file is the first that finds no place; then none finds any."""
    full = False
    opened = Path.open

    def open_full(path: Path, mode: str = "r", *rest: object, **options: object):
        nonlocal full
        stream = opened(path, mode, *rest, **options)
        if "w" in mode and begun and (full or path.name.startswith(file)):
            full = True
            stream.write(b"half" if "b" in mode else "half")
            stream.close()
            raise OSError(errno.ENOSPC, FULL)
        return stream

    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True

    patch = at_batch(13, begin)
    patch.setattr(Path, "open", open_full)
    done = train()
    run = only_run(done)
    done.assert_refused(FULL, f"go on with:  python scripts/train.py resume={run}")
    assert_whole(run, step=10 if file in (".last.ckpt", ".metrics.csv") else 20)
    patch.undo()
    assert_goes_on(run, run_script)


def test_memory_that_is_not_there_in_the_first_batch_leaves_nothing(train: RunScript, at_batch) -> None:
    at_batch(1, lambda: torch.empty(10**15))
    done = train()
    done.assert_refused(
        "out of memory: try half of data.batch_size=50 and data.eval_batch_size=1000, or a smaller network"
    )
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_memory_that_is_gone_later_leaves_a_run_that_goes_on(
    train: RunScript,
    run_script: RunScript,
    at_batch,
    error: Exception,
) -> None:
    def fail() -> None:
        raise error

    patch = at_batch(13, fail)
    done = train()
    done.assert_refused("out of memory: try half of data.batch_size=50")
    assert_whole(done.run, step=10)
    assert record_of(done.run)["status"] == "failed"
    patch.undo()
    assert_goes_on(done.run, run_script)


def test_a_network_that_does_not_fit_leaves_nothing(train: RunScript) -> None:
    done = train("model.channels=[1000000000000]")
    done.assert_refused("out of memory: try a smaller network")
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("script", "words", "hint"),
    [
        ("evaluate", [], "try accelerator=cpu"),
        ("report", [], "try accelerator=cpu"),
        ("predict", ["images=image.png"], "try half of batch_size"),
    ],
)
def test_memory_that_is_not_there_is_told_by_what_uses_a_network(
    train: RunScript, run_script: RunScript, monkeypatch: pytest.MonkeyPatch, script: str, words: list[str], hint: str
) -> None:
    done = train("trainer.max_epochs=1", "test=false")
    Image.new("L", (28, 28)).save(done.folder / "image.png")
    monkeypatch.setattr(CNN, "forward", lambda *_: torch.empty(10**15))
    run_script(script, f"run={done.run}", "accelerator=cpu", *words).assert_refused(f"out of memory: {hint}")


SMALL = (
    "data=folder",
    "data.val_size=100",
    "data.batch_size=50",
    "trainer=cpu",
    "trainer.max_epochs=3000",
    "trainer.log_every_n_steps=5",
    "model.channels=[4,8]",
    "pictures=none",
    "report=false",
)
"""A training of minutes, to be ended within them."""


@pytest.fixture
def running(data_root: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts scripts/train.py in processes of their own, below another command where one is given."""

    def begin(*words: str, below: Sequence[str] = (), **environment: str) -> Started:
        resumed = any(word.startswith("resume=") for word in words)
        given = words if resumed else (*SMALL, f"data.root={data_root}", *words)
        return start(tmp_path, str(SCRIPT), *given, below=(*below, sys.executable), **environment)

    yield begin
    for started in STARTED:
        started.end()
    STARTED.clear()


def run_of(folder: Path) -> Path:
    """The only run, once it has two checkpoints."""
    wait_for(lambda: [*folder.glob("outputs/*/*/checkpoints/previous.ckpt")])
    (run,) = folder.glob("outputs/*/*")
    return run


def allowed(*command: str) -> bool:
    """Whether it can be done here."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


FULL_DISK = """
mount -t tmpfs -o size=4m tmpfs outputs
"$@" &
training=$!
until [ -e outputs/train/*/checkpoints/previous.ckpt ]; do sleep 0.1; done
cat /dev/zero > outputs/filling 2> filling
wait $training
status=$?
rm outputs/filling
cp -a outputs kept
exit $status
"""


@pytest.mark.slow
@pytest.mark.skipif(not allowed("unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"), reason="needs namespaces")
def test_a_disk_that_is_full_in_truth(running: Callable[..., Started], tmp_path: Path, run_script: RunScript) -> None:
    (tmp_path / "outputs").mkdir()
    done = running(below=("unshare", "-rm", "sh", "-c", FULL_DISK, "sh"))
    assert done.status() == 2
    (line,) = done.err
    assert f"{tmp_path}/outputs/train/" in line
    assert f"{FULL}; once that is mended, go on with:  python scripts/train.py resume={tmp_path}" in line
    (tmp_path / "outputs").rmdir()
    run = run_of((tmp_path / "kept").rename(tmp_path / "outputs").parent)
    assert_whole(run)
    resumed = run_script("train", f"resume={run}", "trainer.max_time=00:00:00:01")
    assert (resumed.status, resumed.err) == (0, "")


@pytest.mark.slow
def test_a_run_folder_that_becomes_read_only(running: Callable[..., Started], tmp_path: Path) -> None:
    without = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    if os.geteuid() == 0 and not allowed(*without, "true"):
        pytest.skip("root may write everywhere")
    below = without if os.geteuid() == 0 else ()
    started = running(below=below)
    run = run_of(tmp_path)
    for folder in (run, run / "checkpoints"):
        folder.chmod(0o555)
    assert started.status() == 2
    refused = running(f"resume={run}", below=below)
    assert refused.status() == 2
    (line,) = refused.err
    assert line.startswith(f"error: {run}/")
    assert line.endswith(": Permission denied\n")
    for folder in (run, run / "checkpoints"):
        folder.chmod(0o755)
    (run / ".lock").unlink()  # which couldn't be then, and is held by nobody
    (line,) = started.err
    assert line.startswith(f"error: {run}/")
    assert f": Permission denied; once that is mended, go on with:  python scripts/train.py resume={run}" in line
    assert_whole(run)
    resumed = running(f"resume={run}", "trainer.max_time=00:00:00:01")
    assert (resumed.status(), resumed.err) == (0, [])
