"""Sweeps: which folder each job has, what is run again, how failures and Ctrl-C end them."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import pytest
from conftest import Done, RunScript
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmnist.runs.run import Run
from fmnist.sweep.callback import check
from fmnist.sweep.folders import MAX_NAME, belongs, job_name, same_settings, sweep_name
from fmnist.sweep.overrides import SweepOverrides, parse_sweep
from fmnist.sweep.summary import Sweep
from fmnist.sweep.workers import end_announced

ROOT = Path(__file__).parent.parent
SHORT = ("-m", "trainer.max_epochs=1", "test=false")


def folder_of(done: Done) -> Path:
    """Return the folder of the only sweep."""
    (sweep,) = done.folder.glob("outputs/*/*/multirun.yaml")
    return sweep.parent


@pytest.fixture(scope="module")
def first_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first test that uses `sweep` keeps it for the others."""
    return tmp_path_factory.mktemp("first_sweep") / "outputs"


@pytest.fixture
def sweep(first_sweep: Path, tmp_path: Path, train: RunScript) -> Path:
    """The folder of a finished sweep over two seeds, to be changed."""
    if not first_sweep.is_dir():
        done = train(*SHORT, "seed=0,1")
        assert done.status == 0, done.err
        assert done.out.endswith("2 jobs: 2 finished\n")
        shutil.move(tmp_path / "outputs", first_sweep)
    shutil.copytree(first_sweep, tmp_path / "outputs")
    (file,) = tmp_path.glob("outputs/train/*/multirun.yaml")
    return file.parent


def records(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the record of each job, by its folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/run.json")}


def statuses(sweep: Path) -> dict[str, str]:
    return {name: record["status"] for name, record in records(sweep).items()}


def names_in_order(done: Done) -> list[str]:
    return re.findall(r"^\d+/\d+ (.*?)(?:: |$)", done.out, re.MULTILINE)


def test_a_sweep_runs_every_combination_in_folders_named_by_it(train: RunScript) -> None:
    done = train(*SHORT, "model.dropout=0.1,1.5", "seed=0,1")
    assert done.status == 1
    assert done.err.splitlines()[-1] == "4 jobs: 2 failed, 2 finished; the same command runs the rest"
    sweep = folder_of(done)
    assert done.out.startswith(f"4 jobs in {sweep}\n")
    names = [f"model.dropout={rate},seed={seed}" for rate in ("0.1", "1.5") for seed in (0, 1)]
    assert names_in_order(done) == names
    jobs = records(sweep)
    assert [jobs[name]["status"] for name in names] == ["finished", "finished", "failed", "failed"]
    for name in names[:2]:
        config = OmegaConf.load(sweep / name / "config.yaml")
        assert f"model.dropout={config.model.dropout},seed={config.seed}" == name
        assert (jobs[name]["choices"]["optimizer"], jobs[name]["choices"]["data"]) == ("muon", "idx")
        assert jobs[name]["varied"] == name.split(",")
    assert jobs[names[2]]["error"].startswith("model.dropout=1.5: ")
    assert "failed: model.dropout=1.5: " in done.out
    assert "2 runs of 1 setting, 2 failed, by val/accuracy" in done.out
    assert f"page:   {sweep / 'comparison.html'}\ncurves: tensorboard --logdir {sweep}\n" in done.out


def test_a_job_is_one_line_with_its_result_and_all_of_them_on_request(train: RunScript) -> None:
    done = train(*SHORT, "seed=0,1")
    assert done.status == 0, done.err
    accuracies = [
        json.loads(file.read_text())["val/accuracy"] for file in sorted(folder_of(done).glob("*/metrics.json"))
    ]
    lines = [f"{n + 1}/2 seed={n}: finished: val/accuracy {accuracy:.4f}" for n, accuracy in enumerate(accuracies)]
    assert done.out.splitlines()[1:3] == lines
    assert "epoch 1/" not in done.out
    assert "epoch 1/" in (folder_of(done) / "seed=0" / "run.log").read_text()
    shown = train(*SHORT, "seed=2,3", "hydra.verbose=true")
    assert names_in_order(shown) == ["seed=2", "seed=3"]
    assert shown.out.count("epoch 1/1") == 2


def test_a_grid_of_one_value_is_named_by_all_overrides_and_flags_may_follow(train: RunScript) -> None:
    done = train("seed=0", "trainer=ddp_cpu", "trainer.devices=1", "trainer.fast_dev_run=true", "-m")
    assert done.status == 0, done.err  # a trainer for several processes may have one
    (name,) = records(folder_of(done))
    assert name.startswith("data.batch_size=50,data.classes=T-shirt-top-")


def test_a_grid_can_be_combined_with_where_it_runs(run_script: RunScript) -> None:
    done = run_script("train", "sweep=[parallel,learning_rate]", "--cfg", "hydra")
    assert "JoblibLauncher" in done.out
    assert "optimizer.lr: 0.05,0.1,0.15,0.3" in done.out


def test_finished_jobs_are_skipped_also_in_a_larger_grid_and_failed_ones_run_again(
    sweep: Path, train: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmnist import run_training as job

    def fails(*_: Any) -> Any:
        raise RuntimeError("not\ntoday")

    files = {path: path.stat().st_mtime_ns for path in sweep.glob("*/*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(job, "train", fails)
        again = train("test=false", *SHORT[:2], "seed=1,0")
        assert again.status == 0, again.err
        assert again.out.count("already finished: ") == 2
        assert again.out.endswith("2 jobs: 2 already finished\n")
        larger = train(*SHORT, "seed=0,1,2")
    assert larger.status == 1
    record = records(sweep)["seed=2"]
    assert (record["status"], record["error"]) == ("failed", "RuntimeError: not today")
    assert "Traceback" in (sweep / "seed=2" / "error.txt").read_text()
    assert "Traceback" not in larger.err + larger.out
    last = train(*SHORT, "seed=0,1,2")
    assert last.status == 0, last.err
    assert last.out.endswith("3 jobs: 2 already finished, 1 finished\n")
    assert not (sweep / "seed=2" / "error.txt").exists()
    assert statuses(sweep) == dict.fromkeys(["seed=0", "seed=1", "seed=2"], "finished")
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_sweep_is_named_by_what_its_jobs_have_in_common() -> None:
    def name(swept: set[str], **fixed: str) -> str:
        return sweep_name(SweepOverrides(frozenset(swept), fixed, 2))

    assert name({"seed", "model.dropout"}) == "sweep_model.dropout+seed"
    assert name({"seed"}, sweep="sweep=parallel", name="name=mine") == "sweep_seed"  # no job differs by it
    several = [name({"seed"}, test=value) for value in ("test=true", "test=false")]
    assert len({"sweep_seed", *several}) == 3
    assert name({"seed"}, a="a=1", b="b=2") == name({"seed"}, b="b=2", a="a=1")


@pytest.mark.parametrize(
    ("values", "jobs"),
    [
        ("range(0,0.4,0.1)", 5),  # by Hydra's rounding 0.4 is one of them
        ("range(0.3,0,-0.15)", 3),
        ("range(0.1,0.5,0.3)", 2),
        ("range(0.5,0.1,0.3)", 0),
        ("sort(range(0,0.5,0.2))", 3),
        ("sort(range(0,5,2),reverse=true)", 3),
        ("shuffle(0.1,0.2)", 2),
    ],
)
def test_a_sweep_has_as_many_jobs_as_hydra_runs(values: str, jobs: int) -> None:
    given = [f"model.dropout={values}", "seed=0"]
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None) or [[]]
    assert len(batch) == jobs
    if jobs:
        assert parse_sweep(given, Any).jobs == jobs
    else:
        with pytest.raises(ValueError, match="a sweep of 0 jobs"):
            parse_sweep(given, Any)


def test_a_job_whose_settings_have_changed_gets_a_folder_of_its_own(sweep: Path, train: RunScript) -> None:
    """As after an edit in conf/: the overrides are the same, what is composed isn't."""
    config = sweep / "seed=1" / "config.yaml"
    config.write_text(config.read_text().replace("adam_lr: 0.01", "adam_lr: 0.9"))
    before = config.read_text()
    again = train(*SHORT, "seed=0,1")
    assert names_in_order(again) == ["seed=0", "seed=1_2"]
    assert again.out.endswith("2 jobs: 1 already finished, 1 finished\n")
    assert config.read_text() == before
    assert train(*SHORT, "seed=0,1").out.endswith("2 jobs: 2 already finished\n")


@pytest.mark.parametrize(
    ("recorded", "composed", "same"),
    [
        ({"optimizer": {"lr": 1e-05}, "report": True}, {"optimizer": {"lr": 0.00001}, "report": False}, True),
        ({"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.1, "momentum": 0.9}}, False),
        ({"seed": 0}, {"seed": 1}, False),
        ({"trainer": {"limit_val_batches": 1}}, {"trainer": {"limit_val_batches": 1.0}}, False),
        ({"trainer": {"precision": "bf16-mixed"}}, {"trainer": {"precision": "auto"}}, True),
        ({"trainer": {"precision": "bf16-mixed"}}, {"trainer": {"precision": "32-true"}}, False),
    ],
)
def test_settings_are_the_same_where_the_result_would_be(
    recorded: dict[str, Any], composed: dict[str, Any], same: bool
) -> None:
    assert same_settings(OmegaConf.create(recorded), OmegaConf.create(composed)) == same


@pytest.mark.parametrize("override", ["monitor=val/acuracy", "model.dropuot=0.1"])
def test_an_error_that_all_jobs_share_is_one_line_and_leaves_nothing(train: RunScript, override: str) -> None:
    done = train(*SHORT, "seed=0,1", override)
    done.assert_refused(override.split("=")[0])
    assert not (done.folder / "outputs").exists()


@pytest.mark.slow
def test_a_folder_with_other_files_is_no_job_folder(train: RunScript, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "seed=0" / "precious.txt"
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    for _ in range(2):
        done = train(*SHORT, "seed=0,1", "hydra.sweep.dir=mine")
        assert done.status == 1
        assert [path.name for path in file.parent.iterdir()] == ["precious.txt"]
        assert done.out.startswith(f"2 jobs in {tmp_path / 'mine'}: ")
        assert f"curves: tensorboard --logdir {tmp_path / 'mine'}\n" in done.out


def test_an_interrupted_job_resumes_where_it_was(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    words = ("trainer.max_epochs=2", "test=false")
    whole = train(*words, "seed=0").run
    original = ModelCheckpoint.on_train_epoch_end

    def interrupts(self: Any, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 0 and self.monitor is None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ModelCheckpoint, "on_train_epoch_end", interrupts)
        first = train("-m", *words, "seed=0,1")
    assert first.status == 130
    assert first.out.endswith("2 jobs: 1 interrupted, 1 not started; the same command runs the rest\n")
    assert "1 interrupted, by val/accuracy" in first.out
    again = train("-m", *words, "seed=0,1")
    assert again.status == 0, again.err
    sweep = folder_of(again)
    assert len(records(sweep)["seed=0"]["resumed"]) == 1
    tables = []
    for run in (sweep / "seed=0", whole):
        with (run / "metrics.csv").open() as file:
            rows = [*csv.DictReader(file)]
        tables.append([{name: value for name, value in row.items() if "second" not in name} for row in rows])
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_damaged_files_of_a_job_stop_neither_it_nor_the_others(sweep: Path, train: RunScript) -> None:
    for seed in (0, 1):
        run = Run(sweep / f"seed={seed}")
        run.update_record(status="interrupted")
        damaged = run.record_file if seed else run.last_checkpoint
        damaged.write_bytes(damaged.read_bytes()[:50])
    again = train(*SHORT, "seed=0,1,2")
    assert again.status == 1
    assert "not a readable checkpoint: truncated, damaged or something else" in again.err
    assert [statuses(sweep)[f"seed={seed}"] for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    assert "run.json can't be read" in records(sweep)["seed=1"]["error"]
    last = train(*SHORT, "seed=0,1,2")
    assert last.status == 0, last.err
    assert statuses(sweep)["seed=1"] == "finished"
    assert (sweep / "seed=1" / "run.json.damaged").is_file()


def test_a_job_whose_config_cannot_be_read_now_is_not_taken_for_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.save_config({"seed": 1})
    assert belongs(run, {"seed": 1}, [])
    run.config_file.write_bytes(b"seed: [")
    assert not belongs(run, {"seed": 1}, [])

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(OSError, match=f"Input/output error: '{run.config_file}'"):
        belongs(run, {"seed": 1}, [])


def test_a_job_that_another_process_runs_is_left_alone(sweep: Path, train: RunScript) -> None:
    run = Run(sweep / "seed=1")
    run.update_record(status="running")
    with run.locked():
        again = train(*SHORT, "seed=0,1")
    assert again.status == 1
    tally = "2 jobs: 1 already finished, 1 running in another process; the same command runs the rest"
    assert again.err.splitlines() == [tally]
    assert run.status == "running"


def test_a_killed_worker_ends_the_sweep_with_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = tmp_path / ".outcomes"
    outcomes.mkdir()
    (outcomes / "0.json").write_text('{"folder": "seed=0", "status": "finished"}')
    for seed in (0, 1):
        Run(tmp_path / f"seed={seed}").folder.mkdir()
    Run(tmp_path / "seed=1").update_record(status="running")
    sweep = Sweep("train", tmp_path, is_new=False, jobs=2, outcomes=outcomes)
    with pytest.raises(ValueError, match=r"^the jobs were killed: RuntimeError: a worker was killed$"):
        sweep.end(None, RuntimeError("a worker was killed\n\nexit codes: -9"), None)
    assert capsys.readouterr().out.endswith("2 jobs: 1 finished, 1 not finished; the same command runs the rest\n")
    assert statuses(tmp_path) == {"seed=1": "interrupted"}
    assert not outcomes.exists()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=0", "model.channels=[16,32]"], "model.channels=16-32,seed=0"),
        (["data.root='/a b/c'"], "data.root=-ab-c"),
        (["+trainer.x=1"], "trainer.x=1"),
        ([], "defaults"),
    ],
)
def test_names_of_folders_can_be_typed(overrides: list[str], name: str) -> None:
    assert job_name(overrides) == name


def test_long_names_are_cut_and_differ() -> None:
    names = {job_name([f"model.channels=[{','.join(['16'] * 100)},{last}]"]) for last in (1, 2)}
    assert len(names) == 2
    assert max(map(len, names)) <= MAX_NAME


def test_jobs_whose_names_would_be_the_same_get_numbers(train: RunScript, data_root: Path) -> None:
    (data_root.parent / "data root").symlink_to(data_root)
    (data_root.parent / "dataroot").symlink_to(data_root)
    done = train("-m", "trainer=debug", f"data.root='{data_root.parent}/data root',{data_root.parent}/dataroot")
    assert done.status == 0, done.err
    first, second = names_in_order(done)
    assert second == f"{first}_2"


@pytest.mark.slow
def test_names_of_runs_can_be_swept(train: RunScript) -> None:
    assert names_in_order(train("-m", "trainer=debug", "name=a,b")) == ["name=a", "name=b"]


def test_other_commands_sweep_too(finished_run: Path, run_script: RunScript) -> None:
    done = run_script("evaluate", "-m", f"run='{finished_run}'", "split=val,test")
    assert done.status == 0, done.err
    assert "val of " in done.out
    assert "test of " in done.out
    assert not (done.folder / "outputs" / "evaluate").exists()


def test_each_process_of_a_sweep_gets_a_gpu_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fmnist.sweep.gpu_assignment import use_own_gpu;"
        "use_own_gpu(Path(sys.argv[1])); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    command, environment = [sys.executable, "-c", code, str(tmp_path)], os.environ | {"CUDA_VISIBLE_DEVICES": "2,5"}
    gpus = []
    with ExitStack() as stack:
        for _ in range(3):
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
            stack.callback(process.communicate, "")
            assert process.stdout is not None
            gpus.append(process.stdout.readline().strip())
    assert gpus == ["2", "5", "2"]


def test_parallel_jobs_are_one_on_each_gpu_or_core(monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs_at_once(gpus: str) -> int:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        hydra = OmegaConf.create({"job": {"config_name": "train"}, "run": {"dir": "."}, "sweep": {"subdir": "auto"}})
        hydra.launcher = {"_target_": "JoblibLauncher", "n_jobs": -1}
        check(hydra)
        return int(hydra.launcher.n_jobs)

    assert jobs_at_once("0,3") == 2
    assert jobs_at_once("") == -1


def command(data_root: Path, *words: str) -> list[str]:
    """Return a command for a process of its own: what is pickled for workers is otherwise never tried."""
    small = [
        "data=idx", f"data.root={data_root}", "data.val_size=100", "data.batch_size=50", "trainer=cpu",
        "trainer.max_epochs=1", "model.channels=[4,8]", "pictures=none", "report=false", "test=false",
    ]  # fmt: skip
    given = {word.split("=")[0] for word in words}
    kept = [word for word in small if word.split("=")[0] not in given]
    return [sys.executable, str(ROOT / "scripts/train.py"), *words, *kept]


PARALLEL = ("sweep=parallel", "hydra.launcher.n_jobs=2")


def test_jobs_run_in_parallel(data_root: Path, tmp_path: Path) -> None:
    words = command(data_root, *PARALLEL, "seed=0", "model.dropout=0.1,1.5")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "2 jobs: 1 failed, 1 finished; the same command runs the rest\n"
    line = r"^\d/2 model.dropout=\S+: (?:finished: val/accuracy [\d.]+|failed: .*)$"
    assert len(re.findall(line, done.stdout, re.MULTILINE)) == 2
    (sweep,) = tmp_path.glob("outputs/train/*")
    assert sorted(statuses(sweep).values()) == ["failed", "finished"]
    threads = [job["hardware"]["threads"] for job in records(sweep).values() if job["status"] == "finished"]
    assert threads == [max(1, (os.cpu_count() or 1) // 2)]
    assert not [*sweep.glob(".outcomes*")]


WORKERS = """
import os, time
from pathlib import Path
from joblib import Parallel, delayed
from fmnist.sweep.workers import continue_in_own_session, interrupted_when

continue_in_own_session(Path("stop"))
parent = os.getpid()

def stopped():
    return Path("stop").exists() or os.getppid() != parent

def job(number):
    if stopped():
        return
    with interrupted_when(stopped):
        try:
            Path(f"begun{number}").touch()
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.3)
            Path(f"saved{number}").touch()

Parallel(n_jobs=2, batch_size=1)(delayed(job)(number) for number in range(4))
print("ended")
"""
"""Jobs that take no time to import, in joblib's processes."""


@pytest.mark.parametrize(
    ("send", "number", "said"),
    [
        (os.kill, signal.SIGINT, ["interrupted: the running jobs save their checkpoints", "ended"]),
        (os.killpg, signal.SIGINT, ["interrupted: the running jobs save their checkpoints", "ended"]),
        (os.kill, signal.SIGKILL, ["ended"]),
    ],
    ids=["Ctrl-C to the first process", "Ctrl-C to all, as a terminal does", "the first process is killed"],
)
def test_parallel_jobs_save_and_no_more_begin(
    send: Callable[[int, int], None], number: int, said: list[str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=PIPE, stderr=STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len([*tmp_path.glob("begun*")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    send(process.pid, number)
    out, _ = process.communicate(timeout=60)  # no process is left either: each would hold the pipe open
    assert out.splitlines() == said
    assert [len([*tmp_path.glob(f"{what}*")]) for what in ("begun", "saved")] == [2, 2]


@pytest.mark.slow
def test_ctrl_c_in_parallel_jobs_and_the_same_command_again(data_root: Path, tmp_path: Path) -> None:
    words = command(data_root, *PARALLEL, "trainer.max_epochs=40", "seed=0,1,2")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    while len([*tmp_path.glob("outputs/train/*/*/checkpoints/last.ckpt")]) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "\ninterrupted: the running jobs save their checkpoints\n" in out
    assert out.endswith("3 jobs: 2 interrupted, 1 not started; the same command runs the rest\n")
    assert "Traceback" not in out
    (sweep,) = tmp_path.glob("outputs/train/*")
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"seed=0", "seed=1"}
    kept = {path.name for path in sweep.glob("*/checkpoints/*")}
    assert {"best.ckpt", "last.ckpt"} <= kept <= {"best.ckpt", "last.ckpt", "previous.ckpt"}
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert statuses(sweep) == dict.fromkeys(["seed=0", "seed=1", "seed=2"], "finished")
    assert sum("resumed" in record for record in records(sweep).values()) == 2


@pytest.mark.slow
def test_two_commands_at_once_lose_nothing(data_root: Path, tmp_path: Path) -> None:
    words = command(data_root, "-m", "seed=0,1,2,3")
    both = [subprocess.Popen(words, cwd=tmp_path, stdout=PIPE, text=True) for _ in range(2)]
    outs = [process.communicate(timeout=300)[0] for process in both]
    (sweep,) = tmp_path.glob("outputs/train/*")
    assert statuses(sweep) == {f"seed={seed}": "finished" for seed in range(4)}
    assert all("resumed" not in record for record in records(sweep).values())
    assert sum(out.count(": finished: ") for out in outs) == 4  # each job was trained once
    assert {process.returncode for process in both} <= {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["hydra/launcher=submitit_local", "sweep=ray"])
def test_jobs_run_through_the_launchers_of_clusters(launcher: str, data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(data_root, "-m", launcher, "seed=0,1", "model.dropout=0.1,1.5"),
            cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
            check=False,
        )  # fmt: skip

    done = run()
    assert done.returncode == 1, done.stderr
    assert "4 jobs: 2 failed, 2 finished" in done.stderr
    (sweep,) = tmp_path.glob("outputs/train/*")
    assert sorted(statuses(sweep).values()) == ["failed", "failed", "finished", "finished"]
    assert "4 jobs: 2 already finished, 2 failed" in run().stderr
    assert [*tmp_path.glob("outputs/train/*")] == [sweep]


def test_slurm_gets_what_its_config_says(run_script: RunScript) -> None:
    pytest.importorskip("submitit")
    done = run_script("train", "sweep=slurm", "--cfg", "hydra", "-p", "hydra.launcher")
    assert done.status == 0, done.err
    launcher = OmegaConf.create(done.out.partition("\n")[2])
    assert launcher.gpus_per_node == 1
    assert launcher.max_num_timeout > 0  # a job that its time limit ends is started again
    assert launcher._target_.endswith(".SlurmLauncher")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_job_of_slurm_is_interrupted_before_submitit_handles_the_signal(number: signal.Signals) -> None:
    handled: list[int] = []
    names = (signal.SIGTERM, signal.SIGUSR2)
    before = {name: signal.signal(name, lambda number, _: handled.append(number)) for name in names}  # submitit's
    try:
        with end_announced() as announced:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            assert announced == [signal.SIGUSR2] * (number == signal.SIGUSR2)
            assert handled == []
        signal.raise_signal(number)
        assert handled == [number]
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@pytest.mark.parametrize("sweep", ["slurm", "ray"])
def test_a_launcher_that_is_not_installed_says_how_to_install_it(
    sweep: str, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in [*store]:
        if name.startswith(("submitit", "ray")):
            monkeypatch.delitem(store, name)
    done = run_script("train", f"sweep={sweep}", "seed=0,1")
    done.assert_refused("hydra/launcher=", "`make extras` installs")
