import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Done, RunScript
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from rich.console import Console

from fmnist.runs.run import Run
from fmnist.sweep import gpu_assignment as shares
from fmnist.sweep.grid import Grid
from fmnist.sweep.job_queue import Turns
from fmnist.sweep.plan import Job, Plan, folder_name, plan_jobs, settle
from fmnist.sweep.progress import Progress

ROOT = Path(__file__).parent.parent
SHORT = ("-m", "trainer.max_epochs=1", "test=false")


def folder_of(done: Done) -> Path:
    """The only sweep's."""
    (plan,) = done.folder.glob("outputs/*/*/sweep.json")
    return plan.parent


def jobs_of(done: Done) -> dict[str, dict[str, Any]]:
    """The record of each job, by its folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder_of(done).glob("*/run.json")}


def test_a_sweep_runs_every_combination_in_folders_named_by_it(train: RunScript) -> None:
    done = train(*SHORT, "model.dropout=0.0,0.2", "seed=0,1")
    assert done.status == 0, done.err
    jobs = jobs_of(done)
    assert set(jobs) == {f"model.dropout={rate},seed={seed}" for rate in ("0.0", "0.2") for seed in (0, 1)}
    for name, job in jobs.items():
        config = OmegaConf.load(folder_of(done) / name / "config.yaml")
        assert f"model.dropout={config.model.dropout},seed={config.seed}" == name
        assert job["status"] == "finished"
        assert job["choices"]["optimizer"] == "adamw"
        assert job["choices"]["data"] == "folder"
    assert "job 4/4: model.dropout=0.2,seed=1" in done.out


def test_a_sweep_elsewhere_says_where_its_curves_are(train: RunScript) -> None:
    done = train(*SHORT, "seed=0", "hydra.sweep.dir=elsewhere")
    assert done.out.startswith(f"1 job in {done.folder / 'elsewhere'}\n")
    assert f"tensorboard --logdir {done.folder / 'elsewhere'}\n" in done.out + done.err


def test_flags_may_stand_anywhere(train: RunScript) -> None:
    done = train("seed=0,1", "trainer=debug", "-m")
    assert done.status == 0, done.err
    assert len(jobs_of(done)) == 2


def test_a_place_for_several_processes_may_be_given_one(train: RunScript) -> None:
    done = train("-m", "trainer=ddp_cpu", "trainer.devices=1", "trainer.fast_dev_run=true", "seed=0,1")
    assert done.status == 0, done.err
    assert set(jobs_of(done)) == {"seed=0", "seed=1"}


def test_a_grid_joins_with_where_it_runs(run_script: RunScript) -> None:
    done = run_script("train", "sweep=[parallel,learning_rate]", "--cfg", "hydra")
    assert "JoblibLauncher" in done.out
    assert "optimizer.lr: 0.001,0.0025,0.005,0.01" in done.out


def test_the_same_command_again_leaves_what_is_finished_alone(train: RunScript) -> None:
    first = train(*SHORT, "seed=0,1")
    files = {path: path.stat().st_mtime_ns for path in folder_of(first).glob("*/*") if path.is_file()}
    again = train(*SHORT, "seed=1,0")
    assert again.status == 0, again.err
    assert "2 of 2 jobs are finished" in again.out
    assert "nothing is left to do" in again.out
    assert {path: path.stat().st_mtime_ns for path in folder_of(again).glob("*/*") if path.is_file()} == files


def test_more_of_the_same_grid_goes_on_in_its_folder(train: RunScript) -> None:
    train(*SHORT, "seed=0,1")
    more = train(*SHORT, "seed=0,1,2")
    assert "2 of 3 jobs are finished" in more.out
    assert "job 3/3: seed=2" in more.out
    assert "job 1/3" not in more.out
    assert set(jobs_of(more)) == {"seed=0", "seed=1", "seed=2"}


def test_other_words_make_another_sweep(train: RunScript) -> None:
    train(*SHORT, "seed=0,1")
    other = train(*SHORT, "seed=0,1", "model.dropout=0.3")
    assert "2 jobs in " in other.out
    assert len([*other.folder.glob("outputs/train/*/sweep.json")]) == 2


def test_a_job_whose_settings_have_changed_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As after an edit in conf/: the words are the same, the digest isn't."""
    grid = [["seed=0"], ["seed=1"]]
    first = settle(plan_jobs(grid, ["seed"], ["a", "b"]), tmp_path)
    assert [job.folder for job in first.jobs] == ["seed=0", "seed=1"]
    edited = settle(plan_jobs(grid, ["seed"], ["a", "B"]), tmp_path)
    assert [job.folder for job in edited.jobs] == ["seed=0", "seed=1_2"]
    assert settle(plan_jobs(grid, ["seed"], ["a", "B"]), tmp_path) == edited
    assert settle(plan_jobs(grid, ["seed"], ["a", "b"]), tmp_path) == first


def test_a_failing_job_is_recorded_and_the_others_go_on(train: RunScript) -> None:
    done = train(*SHORT, "model.dropout=0.1,1.5,0.2")
    assert done.status == 1
    assert done.err.splitlines()[-1] == "1 of 3 jobs failed; the same command tries them again"
    jobs = jobs_of(done)
    assert {name: job["status"] for name, job in jobs.items()} == {
        "model.dropout=0.1": "finished",
        "model.dropout=1.5": "failed",
        "model.dropout=0.2": "finished",
    }
    assert jobs["model.dropout=1.5"]["error"] == "model.dropout=1.5: must be less than 1"
    assert "failed: model.dropout=1.5" in done.out


def test_a_job_that_failed_is_tried_again(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist import train as job

    original = job.train

    def fails(session: Any, *arguments: Any) -> Any:
        if session.config["seed"] == 1:
            raise RuntimeError("not\ntoday")
        return original(session, *arguments)

    monkeypatch.setattr(job, "train", fails)
    first = train(*SHORT, "seed=0,1")
    assert first.status == 1
    assert jobs_of(first)["seed=1"]["error"] == "RuntimeError: not today"
    assert "Traceback" in (folder_of(first) / "seed=1" / "error.txt").read_text()
    assert "Traceback" not in first.err + first.out
    monkeypatch.undo()
    monkeypatch.chdir(first.folder)
    again = train(*SHORT, "seed=0,1")
    assert again.status == 0, again.err
    assert "1 of 2 jobs are finished" in again.out
    assert jobs_of(again)["seed=1"]["status"] == "finished"
    assert not (folder_of(again) / "seed=1" / "error.txt").exists()


def test_a_mistake_in_what_all_jobs_share_is_tried_three_times(train: RunScript) -> None:
    done = train(*SHORT, "seed=range(0,8)", "monitor=val/acuracy")
    done.assert_refused("3 jobs failed alike, and none did better, so that no more begin: monitor=val/acuracy")
    assert done.out.count("failed:") == 3


def test_a_wrong_value_of_the_grid_does_not_end_the_sweep(train: RunScript) -> None:
    done = train(*SHORT, "model.dropout=1.5,0.1", "seed=0,1,2")
    assert done.status == 1
    assert "3 of 6 jobs failed" in done.err
    assert sorted(job["status"] for job in jobs_of(done).values()) == ["failed"] * 3 + ["finished"] * 3


def test_what_comes_next_shares_least_with_what_has_failed() -> None:
    grid = [[f"a={a}", f"b={b}"] for a in (0, 1) for b in range(10)]
    turns = Turns(plan_jobs(grid, ["a", "b"], [""] * 20).jobs)
    assert [job.folder for job in turns][:3] == ["a=0,b=0", "a=0,b=1", "a=0,b=2"]
    for job in turns:
        turns.note(job.folder, "no such thing")
    assert [job.folder for job in turns.taken] == ["a=0,b=0", "a=1,b=1", "a=0,b=2"]
    assert turns.hopeless == "no such thing"


def test_jobs_that_fail_differently_or_not_at_all_do_not_end_a_sweep() -> None:
    jobs = plan_jobs([[f"a={a}"] for a in range(9)], ["a"], [""] * 9).jobs
    for errors in (["x", "y"] * 3, [None, *"xxxxx"]):
        turns = Turns(jobs)
        for job, error in zip(jobs, errors, strict=False):
            turns.note(job.folder, error)
        assert not turns.hopeless


def test_a_job_that_was_cut_off_goes_on_where_it_was(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    words = ("-m", "trainer.max_epochs=3", "test=false", "seed=0,1")
    untouched = train(*words, "name=untouched")
    original = ModelCheckpoint.on_train_epoch_end

    def interrupts(self: Any, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 1 and self.monitor is None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ModelCheckpoint, "on_train_epoch_end", interrupts)
    first = train(*words, "name=cut")
    assert first.status == 130
    assert "2 jobs: 1 interrupted, 1 not begun; the same command goes on" in first.out
    monkeypatch.undo()
    monkeypatch.chdir(first.folder)
    again = train(*words, "name=cut")
    assert again.status == 0, again.err
    assert "going on in" in again.out
    (cut,) = again.folder.glob("outputs/cut/*")
    (whole,) = untouched.folder.glob("outputs/untouched/*")
    for seed in ("seed=0", "seed=1"):
        rows = [(sweep / seed / "metrics.csv").read_text().splitlines() for sweep in (cut, whole)]
        columns = rows[0][0].split(",")
        kept = [index for index, name in enumerate(columns) if "second" not in name]
        tables = [[[row.split(",")[index] for index in kept] for row in table] for table in rows]
        assert tables[0] == tables[1]


@pytest.mark.slow
def test_damaged_files_of_a_job_stop_neither_it_nor_the_others(train: RunScript) -> None:
    first = train(*SHORT, "seed=0,1,2")
    for seed in (0, 1):
        run = Run(folder_of(first) / f"seed={seed}")
        run.update_record(status="interrupted")
        damaged = run.record_file if seed else run.last_checkpoint
        damaged.write_bytes(damaged.read_bytes()[:50])
    again = train(*SHORT, "seed=0,1,2")
    assert again.status == 1
    assert "not a readable checkpoint: truncated, damaged or something else; the job begins anew" in again.err
    found = jobs_of(again)
    assert [found[f"seed={seed}"]["status"] for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    assert "run.json can't be read" in found["seed=1"]["error"]
    last = train(*SHORT, "seed=0,1,2")
    assert last.status == 0, last.err
    assert jobs_of(last)["seed=1"]["status"] == "finished"
    assert (folder_of(last) / "seed=1" / "run.json.damaged").is_file()


def test_a_job_that_another_process_runs_is_left_alone(train: RunScript) -> None:
    first = train(*SHORT, "seed=0,1")
    run = Run(folder_of(first) / "seed=1")
    run.update_record(status="running")
    with run.locked():
        again = train(*SHORT, "seed=0,1")
    assert again.status == 1
    assert "another process is writing this run" in again.out
    assert again.err == "1 of 2 jobs left alone: another process is running it\n"
    assert run.status == "running"


def test_a_killed_process_ends_the_sweep_in_a_line_and_it_goes_on(
    train: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(_: Any, __: Plan, jobs: list[Job], folder: Path, *___: int) -> Any:
        run = jobs[0].run(folder)
        run.folder.mkdir()
        run.log_file.write_text("")
        run.update_record(status="running")
        raise RuntimeError("a worker was killed\n\nexit codes: -9")

    monkeypatch.setattr(Grid, "launch", launch)
    monkeypatch.setattr(Grid, "in_turn", property(lambda _: False, lambda *_: None), raising=False)
    first = train(*SHORT, "seed=0,1")
    first.assert_refused("the jobs were cut off: RuntimeError: a worker was killed")
    assert "the same command goes on" in first.out
    assert jobs_of(first)["seed=0"]["status"] == "interrupted"
    monkeypatch.undo()
    monkeypatch.chdir(first.folder)
    again = train(*SHORT, "seed=0,1")
    assert again.status == 0, again.err
    assert {job["status"] for job in jobs_of(again).values()} == {"finished"}


def test_a_grid_of_one_value_is_named_by_all_words(run_script: RunScript, data_root: Path) -> None:
    done = run_script("train", "-m", "trainer=debug", "data=folder", f"data.root={data_root}", "data.val_size=100")
    assert done.status == 0, done.err
    (name,) = jobs_of(done)
    assert name.startswith("trainer=debug,data=folder,data.root=-")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["seed=0"], "seed=0"),
        (["model.channels=[16,32]", "seed=0"], "model.channels=16-32,seed=0"),
        (["data.root='/a b/c'"], "data.root=-ab-c"),
        (["+trainer.x=1"], "trainer.x=1"),
        (["optimizer.betas=[0.9,0.99]"], "optimizer.betas=0.9-0.99"),
        ([], "defaults"),
    ],
)
def test_names_of_folders_can_be_typed(words: list[str], name: str) -> None:
    assert folder_name(words) == name


def test_long_names_are_cut_and_stay_apart() -> None:
    first, second = (folder_name([f"model.channels=[{','.join(['16'] * 100)},{last}]"]) for last in (1, 2))
    assert first != second
    assert max(len(first), len(second)) <= 120


def test_names_that_would_be_the_same_get_numbers() -> None:
    plan = plan_jobs([["a='x'"], ["a=x"]], ["a"], ["1", "2"])
    assert [job.folder for job in plan.jobs] == ["a=x", "a=x_2"]


def test_other_scripts_sweep_too(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "test=false").run
    done = run_script("evaluate", "-m", f"run='{run}'", "split=val,test")
    assert done.status == 0, done.err
    assert "val of " in done.out
    assert "test of " in done.out
    assert not (done.folder / "outputs" / "evaluate").exists()


def test_progress_shows_a_line_for_each_job_that_ends(tmp_path: Path) -> None:
    jobs = [Job([f"seed={seed}"], "", f"seed={seed}") for seed in range(4)]
    Run(tmp_path / "seed=3").folder.mkdir()
    Run(tmp_path / "seed=3").update_record(status="interrupted")  # of an earlier time
    with (tmp_path / "out").open("w") as file:
        progress = Progress(tmp_path, jobs, 5, Console(file=file, width=40))
        for seed, status in enumerate(["finished", "failed", "running"]):
            run = Run(tmp_path / f"seed={seed}")
            run.folder.mkdir()
            run.update_record(status=status, **({"error": "no such thing"} if status == "failed" else {}))
            run.history_file.write_text("epoch,seconds,val/accuracy\n0,0.0,0.1\n2,12.34,0.876\n")
        progress.look()
        progress.look()
    assert (tmp_path / "out").read_text().splitlines() == [
        "2/5 seed=0: epoch 2, val accuracy 87.60%, 12.3 s",
        "3/5 seed=1: failed: no such thing",
    ]


def test_progress_on_a_terminal_shows_those_that_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "seed=0")
    jobs = [Job(["seed=0"], "", "seed=0")]
    with (
        (tmp_path / "out").open("w") as file,
        Progress(tmp_path, jobs, 1, Console(force_terminal=True, width=60, file=file)),
    ):
        run.folder.mkdir()
        run.update_record(status="running")
        run.history_file.write_text("epoch,seconds,val/accuracy\n3,1.0,0.5\n")
        time.sleep(1.2)
    assert "seed=0: epoch 3, val accuracy 50.00%, 1.0 s" in (tmp_path / "out").read_text()


def test_each_process_of_a_sweep_gets_a_gpu_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fmnist.sweep.gpu_assignment import use_own_gpu;"
        "use_own_gpu(Path(sys.argv[1])); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "2,5"}
    processes = []
    try:
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path)],
                env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            processes.append(process)
            assert process.stdout is not None
            process.gpu = process.stdout.readline().strip()  # type: ignore[attr-defined]
        assert [process.gpu for process in processes] == ["2", "5", "2"]  # type: ignore[attr-defined]
    finally:
        for process in processes:
            process.communicate("")


def test_jobs_at_once_are_as_many_as_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert shares.jobs_at_once() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares.jobs_at_once() == -1


def test_a_plan_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    from fmnist.sweep.plan import load_plan

    for text in ("", "{", "[]", '{"common": []}', '{"common": [], "jobs": [{"x": 1}]}'):
        (tmp_path / "sweep.json").write_text(text)
        assert load_plan(tmp_path) is None
    Plan(["a=1"], [Job(["b=2"], "0", "b=2")]).save(tmp_path)
    assert load_plan(tmp_path) == Plan(["a=1"], [Job(["b=2"], "0", "b=2")])


def test_jobs_run_beside_each_other(data_root: Path, tmp_path: Path) -> None:
    """In real processes: what is pickled for them is otherwise never tried."""
    words = [
        "data=folder", f"data.root={data_root}", "data.val_size=100", "data.batch_size=50", "trainer=cpu",
        "trainer.max_epochs=1", "model.channels=[4,8]", "pictures=none", "report=false", "test=false",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "scripts/train.py"), "sweep=parallel", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(
        [*command, *words, "seed=0,1", "model.dropout=0.1,1.5"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr == "2 of 4 jobs failed; the same command tries them again\n"
    assert sum(line.startswith(tuple("1234")) and "/4 seed=" in line for line in done.stdout.splitlines()) == 4
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/train/*/*/run.json")]
    assert sorted(record["status"] for record in records) == ["failed", "failed", "finished", "finished"]
    threads = [record["hardware"]["threads"] for record in records if record["status"] == "finished"]
    assert threads == [max(1, (os.cpu_count() or 1) // 2)] * 2


PROCESSES = """
import os, sys, time
from pathlib import Path
from joblib import Parallel, delayed
from fmnist.sweep.workers import StoppedAtOnce, as_worker, run_beside

def job(here, number, stubborn):
    def work():
        Path(f"begun{number}").touch()
        for _ in range(2 if stubborn else 1):
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                time.sleep(0.3)
                Path(f"saved{number}").touch()
        raise KeyboardInterrupt
    return as_worker(here, work, Path(f"folder{number}"))

def launch():
    return Parallel(n_jobs=2)(delayed(job)(os.getpid(), number, len(sys.argv) > 1) for number in range(4))

try:
    run_beside(launch, lambda: print("interrupted", flush=True))
except StoppedAtOnce:
    print("stopped")
except KeyboardInterrupt:
    print("ended")
"""
"""Jobs that take no time to import, in joblib's processes."""


def press_ctrl_c(folder: Path, send: Callable[[int, int], None], *words: str, again: bool = False) -> list[str]:
    """Sends a signal when two jobs run, and another when they have heard of it; returns what was said.

    That it returns says that no process is left, either: each would hold the pipe open.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESSES, *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip

    def wait_for(what: str) -> None:
        end = time.monotonic() + 30
        while len([*folder.glob(what)]) < 2 and time.monotonic() < end:
            time.sleep(0.05)

    wait_for("begun*")
    send(process.pid, signal.SIGINT)
    if again:
        wait_for("saved*")
        send(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert len([*folder.glob("begun*")]) == 2
    return out.splitlines()


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_ctrl_c_lets_the_jobs_that_run_save_and_begins_no_more(
    send: Callable[[int, int], None], tmp_path: Path
) -> None:
    """Sent to the process that was started alone, or as a terminal does to all of them."""
    assert press_ctrl_c(tmp_path, send) == ["interrupted", "ended"]
    assert len([*tmp_path.glob("saved*")]) == 2


def test_ctrl_c_again_ends_all_processes_at_once(tmp_path: Path) -> None:
    assert press_ctrl_c(tmp_path, os.killpg, "stubborn", again=True) == ["interrupted", "stopped"]


def test_workers_save_and_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    press_ctrl_c(tmp_path, lambda process, _: os.kill(process, signal.SIGKILL))
    assert len([*tmp_path.glob("saved*")]) == 2


@pytest.mark.slow
def test_ctrl_c_in_jobs_beside_each_other_and_the_same_command_again(data_root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "scripts/train.py"), "sweep=parallel", "hydra.launcher.n_jobs=2", "data=folder",
        f"data.root={data_root}", "data.val_size=100", "data.batch_size=50", "trainer=cpu", "trainer.max_epochs=40",
        "model.channels=[4,8]", "pictures=none", "report=false", "test=false", "seed=0,1,2",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while len([*tmp_path.glob("outputs/train/*/*/checkpoints/last.ckpt")]) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = out.splitlines()
    assert lines[1].startswith("interrupted: the jobs that run save their checkpoints")
    assert lines[-1] == "3 jobs: 2 interrupted, 1 not begun; the same command goes on"
    assert "Traceback" not in out
    (sweep,) = tmp_path.glob("outputs/train/*")
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"seed=0", "seed=1"}
    kept = {path.name for path in sweep.glob("*/checkpoints/*")}
    assert {"best.ckpt", "last.ckpt"} <= kept <= {"best.ckpt", "last.ckpt", "previous.ckpt"}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    records = [json.loads(path.read_text()) for path in sweep.glob("*/run.json")]
    assert [record["status"] for record in records] == ["finished"] * 3
    assert sum("resumed" in record for record in records) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["hydra/launcher=submitit_local", "sweep=ray"])
def test_jobs_run_through_the_launchers_of_clusters(launcher: str, data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = [
        "data=folder", f"data.root={data_root}", "data.val_size=100", "data.batch_size=50", "trainer=cpu",
        "trainer.max_epochs=1", "model.channels=[4,8]", "pictures=none", "report=false", "test=false",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "scripts/train.py"), "-m", launcher, *words]

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, "seed=0,1", "model.dropout=0.1,1.5"],
            cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
            check=False,
        )  # fmt: skip

    done = run()
    assert done.returncode == 1, done.stderr
    assert "2 of 4 jobs failed" in done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/train/*/*/run.json")]
    assert sorted(record["status"] for record in records) == ["failed", "failed", "finished", "finished"]
    again = run()
    assert "2 of 4 jobs are finished" in again.stdout
    assert len([*tmp_path.glob("outputs/train/*")]) == 1


def test_slurm_gets_what_its_config_says(run_script: RunScript) -> None:
    pytest.importorskip("submitit")
    done = run_script("train", "sweep=slurm", "--cfg", "hydra", "-p", "hydra.launcher")
    assert done.status == 0, done.err
    launcher = OmegaConf.create(done.out.partition("\n")[2])
    assert launcher.gpus_per_node == 1
    assert launcher._target_.endswith(".SlurmLauncher")


@pytest.mark.parametrize("sweep", ["slurm", "ray"])
def test_a_launcher_that_is_not_installed_says_how_to_install_it(
    sweep: str, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in [*store]:
        if name.startswith(("submitit", "ray")):
            monkeypatch.delitem(store, name)
    done = run_script("train", f"sweep={sweep}", "seed=0,1")
    done.assert_refused("hydra/launcher=", "`make cluster` installs")
