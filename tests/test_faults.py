"""Faults of the machine and of other programs: what the user sees, and what is left."""

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript
from PIL import Image
from processes import QUIET, SCRIPT, STARTED, Started, start, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from test_train import metrics_of, press_ctrl_c, record_of, rows_of

from fmnist.config.memory import OutOfMemory, explain_out_of_memory
from fmnist.models.cnn import CNN
from fmnist.runs import checkpoints
from fmnist.training.tensorboard import RunLogger

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
    assert steps_of(shown) == [*range(4, steps, 5)]
    assert [int(row["epoch"]) for row in rows_of(run)] == [*range(steps // 10 + 1)]


def steps_of(shown: EventAccumulator) -> list[int]:
    """At which the mean loss was logged."""
    return [event.step for event in shown.Scalars("train/loss_step")]


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
    done.assert_refused(f"{run}: {FULL}; once that is solved, resume with:  python scripts/train.py resume={run}")
    assert_whole(run, step=10)
    assert record_of(run)["status"] == "failed"
    patch.undo()
    assert_goes_on(run, run_script)


@pytest.fixture
def disk_full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], pytest.MonkeyPatch]:
    """Lets the disk be full from the moment at which a file is written, whose name begins so."""

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

        monkeypatch.setattr(Path, "open", open_full)
        return monkeypatch

    return arrange


@pytest.mark.parametrize("file", ["last.ckpt", "metrics.csv", "metrics.json"])
def test_a_full_disk_leaves_whole_files_and_a_run_that_goes_on(
    train: RunScript, run_script: RunScript, at_batch, disk_full, file: str
) -> None:
    patch = at_batch(13, lambda: disk_full(f".{file}"))
    done = train()
    run = only_run(done)
    where = run / ("checkpoints/last.ckpt" if file == "last.ckpt" else file)
    done.assert_refused(f"{where}: {FULL}; once that is solved, resume with:  python scripts/train.py resume={run}")
    assert_whole(run, step=10 if file in ("last.ckpt", "metrics.csv") else 20)
    assert record_of(run)["status"] == "running"
    patch.undo()
    assert_goes_on(run, run_script)


def test_a_disk_that_is_full_from_the_beginning_leaves_no_run(train: RunScript, disk_full) -> None:
    disk_full(".run.json")
    done = train()
    done.assert_refused("/run.json: No space left on device")
    assert not (done.folder / "outputs").exists()


def test_a_report_that_finds_no_place_is_written_later(train: RunScript, run_script: RunScript, disk_full) -> None:
    patch = disk_full(".report.html")
    done = train("report=true")
    done.assert_refused(f"{done.run}/report.html: {FULL}")
    assert record_of(done.run)["status"] == "finished"
    assert_whole(done.run)
    patch.undo()
    assert run_script("report", f"run={done.run}").status == 0


def test_memory_that_is_not_there_in_the_first_batch_leaves_nothing(train: RunScript, at_batch) -> None:
    at_batch(1, lambda: torch.empty(10**15))
    done = train()
    done.assert_refused(
        "out of memory: try half of data.batch_size=50 and data.eval_batch_size=1000, or a smaller network"
    )
    assert not (done.folder / "outputs").exists()


def test_memory_that_is_gone_later_leaves_a_run_that_goes_on(train: RunScript, run_script: RunScript, at_batch) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    patch = at_batch(13, fail)
    done = train()
    done.assert_refused("out of memory: try half of data.batch_size=50")
    assert_whole(done.run, step=10)
    assert record_of(done.run)["status"] == "failed"
    patch.undo()
    assert_goes_on(done.run, run_script)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_has_many_ways_to_end(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"^out of memory: a hint$"), explain_out_of_memory("a hint"):
        raise error
    with pytest.raises(RuntimeError, match="something else"), explain_out_of_memory("a hint"):
        raise RuntimeError("something else")


def test_a_network_that_does_not_fit_leaves_nothing(train: RunScript) -> None:
    done = train("model.channels=[1000000,1000000]")
    done.assert_refused("model: its weights need")
    assert not (done.folder / "outputs").exists()


def test_memory_that_is_not_there_is_told_by_what_uses_a_network(
    train: RunScript, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train("trainer.max_epochs=1", "test=false")
    Image.new("L", (28, 28)).save(done.folder / "image.png")
    monkeypatch.setattr(CNN, "forward", lambda *_: torch.empty(10**15))
    for script, words, hint in (
        ("evaluate", [], "try accelerator=cpu"),
        ("report", [], "try accelerator=cpu"),
        ("predict", ["images=image.png"], "try half of batch_size"),
    ):
        run_script(script, f"run={done.run}", "accelerator=cpu", *words).assert_refused(f"out of memory: {hint}")


@pytest.fixture
def hangup_heard() -> Iterator[None]:
    """Also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_heard")
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, ["-m", "seed=0,1"]),
        (signal.SIGTERM, 75, ["-m", "seed=0,1"]),
        (signal.SIGTERM, 75, []),
        (signal.SIGUSR1, 75, []),
        (signal.SIGHUP, 75, []),
    ],
)
def test_whoever_ends_a_training_finds_a_checkpoint(
    train: RunScript, at_batch, number: signal.Signals, status: int, words: list[str]
) -> None:
    patch = at_batch(13, lambda: os.kill(os.getpid(), number))
    done = train(*words)
    (run,) = (file.parent for file in done.folder.glob("outputs/**/config.yaml"))
    assert (done.status, done.err) == (status, "")
    assert_whole(run, step=13)
    assert record_of(run)["status"] == "interrupted"
    assert [line for line in lines(done) if line.startswith("interrupted; resume with:  python scripts/train.py ")]
    patch.undo()
    if words:
        assert train(*words).status == 0  # the same command goes on
        assert len(record_of(run)["resumed"]) == 1


def lines(done: Done) -> list[str]:
    return done.out.splitlines()


def test_what_nohup_keeps_away_is_kept_away(train: RunScript, at_batch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_batch(13, lambda: os.kill(os.getpid(), signal.SIGHUP))
        done = train("test=false")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (done.status, done.err) == (0, "")
    assert record_of(done.run)["status"] == "finished"


def test_a_clock_that_was_set_back_mixes_up_no_curves(train: RunScript, run_script: RunScript, at_batch) -> None:
    patch = at_batch(18, press_ctrl_c)
    run = train("trainer.max_epochs=4").run
    patch.undo()
    for file in run.glob("events.out.tfevents.*"):  # as if written in an hour
        parts = file.name.split(".")
        file.rename(file.with_name(".".join([*parts[:3], str(int(parts[3]) + 3600), *parts[4:]])))
    record = record_of(run)
    (run / "run.json").write_text(json.dumps({**record, "start": "2099-01-01T00:00:00+00:00"}))
    patch = at_batch(28, press_ctrl_c)
    assert run_script("train", f"resume={run}").status == 130
    patch.undo()
    assert_goes_on(run, run_script, steps=40)
    compared = run_script("compare", str(run.parent))
    assert (compared.status, compared.err) == (0, "")


@pytest.mark.parametrize("second", ["1700000000", "4000000000"])
def test_each_file_of_curves_comes_after_those_before(second: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1700000000.5)
    there = tmp_path / f"events.out.tfevents.{second}.z-host.99.9"
    there.touch()
    logger = RunLogger(tmp_path, tmp_path / "config.yaml", first_step=None)
    for step in range(3):  # closing a file begins the next one
        logger.log_metrics({"loss": 1.0}, step)
        logger.finalize("success")
    files = sorted(tmp_path.glob("events.out.*"))
    assert files[0] == there
    shown = [EventAccumulator(str(file)).Reload() for file in files[1:]]
    assert [[event.step for event in file.Scalars("loss")] for file in shown] == [[0], [1], [2]]


def test_tensorboard_reads_while_a_run_writes(
    train: RunScript, run_script: RunScript, at_batch, tmp_path: Path
) -> None:
    shown: list[EventAccumulator] = []
    seen: list[list[int]] = []

    def reload() -> None:
        while not (runs := [*tmp_path.glob("outputs/*/*")]):
            time.sleep(0.01)
        shown.append(EventAccumulator(str(runs[0])))
        while not over.is_set():
            shown[0].Reload()
            tags = shown[0].Tags()["scalars"]
            seen.append(steps_of(shown[0]) if "train/loss_step" in tags else [])

    over = threading.Event()
    reader = threading.Thread(target=reload)
    reader.start()
    patch = at_batch(28, press_ctrl_c)
    run = train("trainer.max_epochs=6").run
    patch.undo()
    assert_goes_on(run, run_script, steps=60)
    over.set()
    reader.join()
    shown[0].Reload()
    assert len(seen) > 3
    assert all(steps == [*range(4, 4 + 5 * len(steps), 5)] for steps in seen)
    assert steps_of(shown[0]) == [*range(4, 60, 5)]


def test_a_run_on_another_machine_asks_for_the_data_and_goes_on(
    train: RunScript, run_script: RunScript, at_batch, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "its machine" / "data")
    patch = at_batch(13, press_ctrl_c)
    first = train(f"data.root='{data}'").run
    patch.undo()
    run = shutil.copytree(first, tmp_path / "here")
    shutil.rmtree(tmp_path / "its machine")
    for script, words, key in (
        ("evaluate", f"checkpoint={run}/checkpoints/last.ckpt", "data_root"),
        ("report", f"run={run}", "data_root"),
        ("train", f"resume={run}", "data.root"),
    ):
        before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "run.log"}
        said = f"the run's data folder {data} isn't here: {key}=<folder> says where its files are"
        run_script(script, words).assert_refused(said)
        assert {file: file.read_bytes() for file in before} == before
        assert not (tmp_path / "its machine").exists()
        done = run_script(script, words, f"{key}={data_root}")
        assert (done.status, done.err) == (0, ""), done.err
    assert record_of(run)["status"] == "finished"
    assert record_of(first)["status"] == "interrupted"


def test_other_images_than_the_run_began_with_are_refused(
    train: RunScript, run_script: RunScript, at_batch, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "data")
    patch = at_batch(13, press_ctrl_c)
    run = train(f"data.root={data}").run
    patch.undo()
    file = data / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    before = record_of(run)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    run_script("train", f"resume={run}").assert_refused(f"data.root={data}: {file.name} changed since the run began")
    file.write_bytes(whole[:-1])
    run_script("train", f"resume={run}").assert_refused(str(file), "no complete IDX file")
    assert record_of(run) == before
    assert_whole(run, step=13)
    file.write_bytes(whole)
    assert_goes_on(run, run_script)


def test_files_that_are_cut_short_during_a_run_do_not_matter_to_it(
    train: RunScript, at_batch, data_root: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_root, tmp_path / "data")
    at_batch(3, lambda: [os.truncate(file, 100) for file in data.rglob("*ubyte")])
    done = train(f"data.root={data}", "report=true")
    assert (done.status, done.err) == (0, "")
    assert metrics_of(done.run)["test/accuracy"] > 0.5


@pytest.mark.parametrize(
    ("name", "outputs"),
    [('a\'b "c" (größer) #1 日本 😀, %d $HOME', "it's, {mine}"), ("n" * 200, "o")],
)
def test_names_of_all_kinds(train: RunScript, run_script: RunScript, at_batch, name: str, outputs: str) -> None:
    patch = at_batch(13, press_ctrl_c)
    cut = train(f"name={quoted(name)}", f"outputs={quoted(outputs)}")
    assert (cut.status, cut.err) == (130, "")
    patch.undo()
    (run,) = (cut.folder / outputs / name).iterdir()
    (command,) = (line.split(":  ")[1] for line in lines(cut) if line.startswith("interrupted; resume with:"))
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    resumed = run_script("train", said.splitlines()[2])
    assert (resumed.status, resumed.err) == (0, "")
    assert f"run folder: {run}" in lines(resumed)
    assert record_of(run)["status"] == "finished"
    for script in ("evaluate", "report"):
        done = run_script(script, f"run={quoted(str(run))}")
        assert (done.status, done.err) == (0, "")
    compared = run_script("compare", outputs)
    assert (compared.status, compared.err) == (0, "")


def quoted(value: str) -> str:
    """As Hydra wants it, within the quotes of the shell."""
    return '"' + value.replace('"', '\\"') + '"'


@pytest.mark.parametrize("name", ["n" * 256, "ß" * 128])
def test_a_name_that_is_too_long_is_told_before_anything_is_made(train: RunScript, name: str) -> None:
    done = train(f"name={quoted(name)}")
    done.assert_refused("outputs=outputs: can't make a run folder there: File name too long")
    assert not [*done.folder.glob("outputs/*")]


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
    assert f"{FULL}; once that is solved, resume with:  python scripts/train.py resume={tmp_path}" in line
    (tmp_path / "outputs").rmdir()
    run = run_of((tmp_path / "kept").rename(tmp_path / "outputs").parent)
    assert_whole(run)
    resumed = run_script("train", f"resume={run}", "trainer.max_time=00:00:00:01")
    assert (resumed.status, resumed.err) == (0, "")
    shown = EventAccumulator(str(run), size_guidance={"scalars": 0})
    shown.Reload()
    *steps, _ = steps_of(shown)  # the last one when the time was up
    assert steps == [*range(4, 5 * len(steps) + 4, 5)]


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
    assert f": Permission denied; once that is solved, resume with:  python scripts/train.py resume={run}" in line
    assert_whole(run)
    resumed = running(f"resume={run}", "trainer.max_time=00:00:00:01")
    assert (resumed.status(), resumed.err) == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_a_terminal_that_is_closed(data_root: Path, tmp_path: Path, kept: bool, run_script: RunScript) -> None:
    """It ends the training, with a checkpoint, unless the shell keeps its signal away (nohup, disown)."""
    ours, its = pty.openpty()
    heard = ("env", f"--{'ignore' if kept else 'default'}-signal=HUP")
    words = (*SMALL, f"data.root={data_root}", *(("trainer.max_time=00:00:00:06",) if kept else ()))
    process = subprocess.Popen(
        ["setsid", "--ctty", *heard, sys.executable, str(SCRIPT), *words],
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
    refused = run_script("train", f"resume={run}")
    refused.assert_refused(f"{run}: another process is writing this run")
    os.close(ours)
    try:
        assert process.wait(60) == (0 if kept else 75)
    finally:
        process.kill()
    assert_whole(run)
    assert record_of(run)["status"] == ("finished" if kept else "interrupted")


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(data_root: Path, tmp_path: Path) -> None:
    words = " ".join((*SMALL, f"data.root={data_root}", "trainer.max_epochs=20"))
    command = f"{sys.executable} {SCRIPT} {words} | head -1; exit ${{PIPESTATUS[0]}}"
    done = start(tmp_path, "-c", command, below=("bash",))
    assert done.status() == 0
    assert (len(done.out), done.err) == (1, [])
    assert record_of(run_of(tmp_path))["status"] == "finished"


@pytest.mark.slow
def test_a_home_folder_that_cannot_be_written_to_and_another_working_folder(
    running: Callable[..., Started], tmp_path: Path
) -> None:
    home = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": "", "PYTHONWARNINGS": ""}
    (tmp_path / "else").mkdir()
    done = running("pictures=default", "report=true", "trainer.max_epochs=2", **home)
    assert (done.status(), done.err) == (0, [])
    run = run_of(tmp_path)
    assert (run / "report.html").is_file()
    folder = tmp_path / "else"
    evaluated = start(folder, str(SCRIPT.with_name("evaluate.py")), f"run={run}", "accelerator=cpu", **home)
    assert (evaluated.status(), evaluated.err) == (0, [])
    assert not [*folder.iterdir()]


def test_a_sweep_on_a_full_disk_ends_and_the_same_command_goes_on(train: RunScript, at_batch, disk_full) -> None:
    patch = at_batch(13, lambda: disk_full(".last.ckpt"))
    done = train("-m", "seed=0,1")
    done.assert_refused(FULL)
    patch.undo()
    (run,) = (file.parent for file in done.folder.glob("outputs/**/config.yaml"))
    assert_whole(run, step=10)
    again = train("-m", "seed=0,1")
    assert (again.status, again.err) == (0, "")
    assert len(record_of(run)["resumed"]) == 1
