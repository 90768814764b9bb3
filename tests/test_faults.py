"""Faults of the machine and of other programs: what the user sees, and what is left of the run."""

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Done, RunScript, press_ctrl_c
from PIL import Image
from processes import QUIET, SCRIPT, STARTED, Started, start, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from test_train import metrics_of, record_of, rows_of

from fmnist.config.errors import OutOfMemory, explain_out_of_memory
from fmnist.config.overrides import quoted
from fmnist.models.cnn import CNN
from fmnist.runs import checkpoints

FULL = "No space left on device"


def assert_undamaged(run: Path, step: int | None = None) -> None:
    """All files can be read, and no temporary file or lock is left."""
    assert not [*run.rglob(".*")]
    last = checkpoints.load(run / "checkpoints" / "last.ckpt")
    assert step in (None, last["global_step"])
    assert record_of(run)["seed"] == 0
    assert rows_of(run)


def assert_resumes(run: Path, run_script: RunScript, steps: int = 20) -> None:
    """The rest is trained, and the curves and the table have each step and epoch once."""
    assert_succeeds(run_script("train", f"resume={run}"))
    assert record_of(run)["status"] == "finished"
    assert steps_of(run) == [*range(4, steps, 5)]
    assert [int(row["epoch"]) for row in rows_of(run)] == [*range(steps // 10 + 1)]


def assert_succeeds(done: Done) -> None:
    assert (done.status, done.err) == (0, "")


def steps_of(run: Path) -> list[int]:
    """Return the steps at which the mean loss was logged."""
    shown = EventAccumulator(str(run), size_guidance={"scalars": 0})
    shown.Reload()
    return [event.step for event in shown.Scalars("training/loss_step")]


@pytest.fixture
def disk_full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], pytest.MonkeyPatch]:
    """Fill the disk when a file is written whose name begins with a text, or when curves are."""

    def arrange(file: str) -> pytest.MonkeyPatch:
        full = False
        opened = Path.open

        def open_full(path: Path, mode: str = "r", *rest: object, **options: object):
            nonlocal full
            stream = opened(path, mode, *rest, **options)
            if mode[0] in "wx" and (full or path.name.startswith(file)):
                full = True
                stream.write(b"half" if "b" in mode else "half")
                stream.close()
                raise OSError(errno.ENOSPC, FULL)
            return stream

        def write_full(*_: object) -> None:
            raise OSError(errno.ENOSPC, FULL)

        if file == ".events":
            monkeypatch.setattr(RecordWriter, "write", write_full)
        else:
            monkeypatch.setattr(Path, "open", open_full)
        return monkeypatch

    return arrange


@pytest.mark.parametrize(
    ("file", "where", "step", "status"),
    [
        (".events", "", 10, "failed"),
        (".last.ckpt", "/checkpoints/last.ckpt", 10, "running"),
        pytest.param(".metrics.csv", "/metrics.csv", 10, "running", marks=pytest.mark.slow),
        (".metrics.json", "/metrics.json", 20, "running"),
    ],
)
def test_full_disk_leaves_undamaged_files_and_a_run_that_resumes(
    train: RunScript, run_script: RunScript, at_batch, disk_full, file: str, where: str, step: int, status: str
) -> None:
    patch = at_batch(13, lambda: disk_full(file))
    done = train()
    done.assert_refused(f"{done.run}{where}: {FULL}; ", f"python scripts/train.py resume={done.run}")
    assert_undamaged(done.run, step)
    assert record_of(done.run)["status"] == status
    patch.undo()
    assert_resumes(done.run, run_script)


def test_disk_that_is_full_from_the_start_leaves_no_run(train: RunScript, disk_full) -> None:
    disk_full(".run.json")
    done = train()
    done.assert_refused("/run.json: No space left on device")
    assert not (done.folder / "outputs").exists()


def test_report_that_finds_no_space_leaves_a_finished_run(train: RunScript, disk_full) -> None:
    disk_full(".report.html")
    done = train("report=true", "trainer.max_epochs=1")
    done.assert_refused(f"{done.run}/report.html: {FULL}")
    assert record_of(done.run)["status"] == "finished"
    assert_undamaged(done.run)


@pytest.mark.slow
def test_sweep_on_a_full_disk_ends(train: RunScript, at_batch, disk_full) -> None:
    at_batch(13, lambda: disk_full(".last.ckpt"))
    done = train("-m", "seed=0,1")
    done.assert_refused(FULL)
    (run,) = (file.parent for file in done.folder.glob("outputs/**/config.yaml"))
    assert_undamaged(run, step=10)


def test_missing_memory_in_the_first_batch_leaves_no_run(train: RunScript, at_batch) -> None:
    at_batch(1, lambda: torch.empty(10**15))
    done = train()
    done.assert_refused("out of memory: try half of data.batch_size=50 and data.eval_batch_size=1000, or a smaller")
    assert not (done.folder / "outputs").exists()


def test_missing_memory_later_leaves_a_run_that_resumes(train: RunScript, run_script: RunScript, at_batch) -> None:
    patch = at_batch(13, lambda: torch.empty(10**15))
    done = train()
    done.assert_refused("out of memory: try half of data.batch_size=50")
    assert_undamaged(done.run, step=10)
    assert record_of(done.run)["status"] == "failed"
    patch.undo()
    assert_resumes(done.run, run_script)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_errors_about_missing_memory_are_explained(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"^out of memory: a hint$"), explain_out_of_memory("a hint"):
        raise error


def test_missing_memory_is_explained_by_other_commands(
    finished_run: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (28, 28)).save(finished_run / "image.png")
    monkeypatch.setattr(CNN, "forward", lambda *_: torch.empty(10**15))
    for script, words, hint in (
        ("evaluate", [], "try accelerator=cpu"),
        ("report", [], "try accelerator=cpu"),
        ("predict", ["images=run/image.png"], "try half of batch_size"),
    ):
        run_script(script, "run=run", "accelerator=cpu", *words).assert_refused(f"out of memory: {hint}")


@pytest.mark.parametrize(("number", "words"), [(signal.SIGTERM, ["-m", "seed=0,1"]), (signal.SIGUSR1, [])])
def test_signal_ends_a_training_with_a_checkpoint(
    train: RunScript, at_batch, number: signal.Signals, words: list[str]
) -> None:
    patch = at_batch(13, lambda: os.kill(os.getpid(), number))
    done = train(*words)
    (run,) = (file.parent for file in done.folder.glob("outputs/**/config.yaml"))
    assert (done.status, done.err) == (75, "")
    assert_undamaged(run, step=13)
    assert record_of(run)["status"] == "interrupted"
    assert ("seed=0: interrupted\n" if words else "\ninterrupted; ") in done.out
    patch.undo()
    if words:
        assert train(*words).status == 0  # the same command resumes
        assert len(record_of(run)["resumed"]) == 1


def test_training_under_nohup_ignores_a_hangup(train: RunScript, at_batch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_batch(3, lambda: os.kill(os.getpid(), signal.SIGHUP))
        done = train("test=false", "trainer.max_epochs=1")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert_succeeds(done)
    assert record_of(done.run)["status"] == "finished"


@pytest.fixture
def interrupted(train: RunScript, at_batch) -> RunScript:
    """Train with some overrides until Ctrl-C in a batch of the second epoch."""

    def run(*words: str) -> Done:
        patch = at_batch(13, press_ctrl_c)
        done = train(*words)
        patch.undo()
        assert (done.status, done.err) == (130, "")
        return done

    return run


def test_clock_that_is_set_back_leaves_the_curves_in_order(
    interrupted: RunScript, run_script: RunScript, at_batch
) -> None:
    run = interrupted("trainer.max_epochs=3").run
    for file in run.glob("events.out.tfevents.*"):  # as if written an hour later
        parts = file.name.split(".")
        file.rename(file.with_name(".".join([*parts[:3], str(int(parts[3]) + 3600), *parts[4:]])))
    (run / "run.json").write_text(json.dumps({**record_of(run), "start": "2099-01-01T00:00:00+00:00"}))
    patch = at_batch(23, press_ctrl_c)
    assert run_script("train", f"resume={run}").status == 130
    patch.undo()
    assert_resumes(run, run_script, steps=30)
    assert_succeeds(run_script("compare", str(run.parent)))


@pytest.mark.slow
def test_run_on_another_machine_asks_for_the_data_and_resumes(
    interrupted: RunScript, run_script: RunScript, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "its machine" / "data")
    first = interrupted(f"data.root='{data}'").run
    run = shutil.copytree(first, tmp_path / "here")
    shutil.rmtree(tmp_path / "its machine")
    for script, words, key in (
        ("evaluate", f"checkpoint={run}/checkpoints/last.ckpt", "data_root"),
        ("report", f"run={run}", "data_root"),
        ("train", f"resume={run}", "data.root"),
    ):
        before = record_of(run)
        run_script(script, words).assert_refused(f"the run's data folder {data} isn't here: {key}=<folder> says where")
        assert record_of(run) == before
        assert not (tmp_path / "its machine").exists()
        assert_succeeds(run_script(script, words, f"{key}={data_root}"))
    assert record_of(run)["status"] == "finished"
    assert record_of(first)["status"] == "interrupted"


def test_resuming_with_other_images_is_refused(
    interrupted: RunScript, run_script: RunScript, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "data")
    run = interrupted(f"data.root={data}").run
    file = data / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    before = record_of(run)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    run_script("train", f"resume={run}").assert_refused(f"data.root={data}: {file.name} changed since the run began")
    file.write_bytes(whole[:-1])
    run_script("train", f"resume={run}").assert_refused(str(file), "no complete IDX file")
    assert record_of(run) == before
    assert_undamaged(run, step=13)
    file.write_bytes(whole)
    assert_resumes(run, run_script)


def test_truncating_the_data_files_does_not_affect_a_running_training(
    train: RunScript, at_batch, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "data")
    at_batch(3, lambda: [os.truncate(file, 100) for file in data.rglob("*ubyte")])
    done = train(f"data.root={data}", "report=true")
    assert_succeeds(done)
    assert metrics_of(done.run)["test/accuracy"] > 0.5


def test_names_of_all_kinds(interrupted: RunScript, run_script: RunScript) -> None:
    name, outputs = 'a\'b "c" (größer) #1 日本 😀, %d $HOME', "it's, {mine}"
    cut = interrupted(f"name={quoted(name)}", f"outputs={quoted(outputs)}")
    (run,) = (cut.folder / outputs / name).iterdir()
    (command,) = re.findall("^interrupted; .*:  (.*)", cut.out, re.MULTILINE)
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    resumed = run_script("train", said.splitlines()[2])
    assert_succeeds(resumed)
    assert f"run folder: {run}" in resumed.out.splitlines()
    assert record_of(run)["status"] == "finished"
    assert_succeeds(run_script("report", f"run={quoted(str(run))}"))
    assert_succeeds(run_script("compare", outputs))


LONG = (*SMALL, "trainer.max_epochs=3000")
"""A training of minutes, which the tests end."""


@pytest.fixture
def running(data_root: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start scripts/train.py as a process, below another command if one is given."""

    def begin(*words: str, below: Sequence[str] = (), **environment: str) -> Started:
        resumed = any(word.startswith("resume=") for word in words)
        given = words if resumed else (*LONG, f"data.root={data_root}", *words)
        return start(tmp_path, str(SCRIPT), *given, below=(*below, sys.executable), **environment)

    yield begin
    for started in STARTED:
        started.end()
    STARTED.clear()


def run_of(folder: Path) -> Path:
    """Wait until the only run has two checkpoints, and return its folder."""
    wait_for(lambda: [*folder.glob("outputs/*/*/checkpoints/previous.ckpt")])
    (run,) = folder.glob("outputs/*/*")
    return run


def allowed(*command: str) -> bool:
    """Return whether a command succeeds here."""
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
def test_full_tmpfs(running: Callable[..., Started], tmp_path: Path, run_script: RunScript) -> None:
    (tmp_path / "outputs").mkdir()
    done = running(below=("unshare", "-rm", "sh", "-c", FULL_DISK, "sh"))
    assert done.status() == 2
    (line,) = done.err
    assert f"{tmp_path}/outputs/train/" in line
    assert f": {FULL}; " in line
    assert f"python scripts/train.py resume={tmp_path}" in line
    (tmp_path / "outputs").rmdir()
    run = run_of((tmp_path / "kept").rename(tmp_path / "outputs").parent)
    assert_undamaged(run)
    assert_succeeds(run_script("train", f"resume={run}", "trainer.max_time=00:00:00:01"))
    *steps, _ = steps_of(run)  # the last one when the time was up
    assert steps == [*range(4, 5 * len(steps) + 4, 5)]


@pytest.mark.slow
def test_run_folder_that_becomes_read_only(running: Callable[..., Started], tmp_path: Path) -> None:
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
    for folder in (run, run / "checkpoints"):
        folder.chmod(0o755)
    (run / ".lock").unlink()  # which couldn't be then, and is held by nobody
    for (line,), end in ((started.err, f"python scripts/train.py resume={run}"), (refused.err, ": Permission denied")):
        assert line.startswith(f"error: {run}/")
        assert ": Permission denied" in line
        assert line.endswith(f"{end}\n")
    assert_undamaged(run)


@pytest.mark.slow
def test_closed_terminal_ends_the_training_with_a_checkpoint(
    data_root: Path, tmp_path: Path, run_script: RunScript
) -> None:
    ours, its = pty.openpty()
    below = ("setsid", "--ctty", "env", "--default-signal=HUP", sys.executable)
    process = subprocess.Popen(
        [*below, str(SCRIPT), *LONG, f"data.root={data_root}"],
        cwd=tmp_path,
        env={**os.environ, **QUIET, "TERM": "xterm"},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    shown = b""
    while b"epoch 2/" not in shown:
        shown += os.read(ours, 1000)
    run = run_of(tmp_path)
    run_script("train", f"resume={run}").assert_refused(f"{run}: another process is writing this run")
    os.close(ours)
    try:
        assert process.wait(60) == 75
    finally:
        process.kill()
    assert_undamaged(run)
    assert record_of(run)["status"] == "interrupted"


@pytest.mark.slow
def test_reader_that_ends_early(data_root: Path, tmp_path: Path) -> None:
    words = " ".join((*LONG, f"data.root={data_root}", "trainer.max_epochs=20"))
    command = f"{sys.executable} {SCRIPT} {words} | head -1; exit ${{PIPESTATUS[0]}}"
    done = start(tmp_path, "-c", command, below=("bash",))
    assert done.status() == 0
    assert (len(done.out), done.err) == (1, [])
    assert record_of(run_of(tmp_path))["status"] == "finished"


@pytest.mark.slow
def test_unwritable_home_folder_and_another_working_folder(running: Callable[..., Started], tmp_path: Path) -> None:
    home = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": "", "PYTHONWARNINGS": ""}
    folder = tmp_path / "else"
    folder.mkdir()
    done = running("pictures=default", "report=true", "trainer.max_epochs=2", **home)
    assert (done.status(), done.err) == (0, [])
    run = run_of(tmp_path)
    assert (run / "report.html").is_file()
    evaluated = start(folder, str(SCRIPT.with_name("evaluate.py")), f"run={run}", "accelerator=cpu", **home)
    assert (evaluated.status(), evaluated.err) == (0, [])
    assert not [*folder.iterdir()]
