"""Faults of the machine and of other programs: what the user sees, and what is left."""

import errno
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from test_train import record_of, rows_of

from fmnist import checkpoints
from fmnist.models.cnn import CNN

FULL = "No space left on device"


def only_run(done: Done) -> Path:
    (folder,) = done.folder.glob("outputs/*/*")
    return folder


def assert_whole(run: Path, step: int) -> None:
    """All files can be read, no half is left, and nobody holds the run."""
    names = {path.name for path in run.rglob("*")}
    assert not [name for name in names if name.startswith(".")]
    assert checkpoints.load(run / "checkpoints" / "last.ckpt")["global_step"] == step
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
