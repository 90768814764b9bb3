"""scripts/tune.py as a user calls it, with real trials on made-up images."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import SCRIPTS, Done, RunScript
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from fmnist.config.build import build_training
from fmnist.config.help import CONF, options
from fmnist.runs.run import new_run
from fmnist.training.callbacks import Pruning, TrainingPruned
from fmnist.training.fit import prepare_data
from fmnist.training.train import train
from fmnist.tune import storage

SMALL = (
    "data=idx",
    "data.val_size=100",
    "data.batch_size=50",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=5",
    "model.channels=[4]",
)
STUDY = Path("outputs/tune/learning_rate")
Tune = Callable[..., Done]


def overrides_of(data_root: Path, arguments: tuple[str, ...]) -> list[str]:
    """Return the overrides of a small study and then these, which may replace some of them."""
    keys = {argument.split("=")[0] for argument in arguments}
    words = ("search=learning_rate", *SMALL, f"data.root={data_root}")
    return [*(word for word in words if word.split("=")[0] not in keys), *arguments]


@pytest.fixture
def tune(run_script: RunScript, data_root: Path) -> Tune:
    """Run scripts/tune.py in this process."""
    return lambda *arguments: run_script("tune", *overrides_of(data_root, arguments))


def start(folder: Path, data_root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start scripts/tune.py in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / "tune.py"), *overrides_of(data_root, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def load(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def trial_lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("trial ")]


def test_a_study_leaves_trials_a_table_a_page_and_an_experiment(tune: Tune) -> None:
    done = tune("trials=2", "report=true", "test=true")
    assert (done.status, done.err) == (0, "")
    assert "test=true: no trial looks at the test images" in done.out
    folder = done.folder / STUDY
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"0000", "0001", "experiment", "study.db", "study.html", "trials.csv"}
    table = rows(folder)
    assert [row["trial"] for row in table] == ["0", "1"]
    assert (table[0]["optimizer.lr"], table[0]["optimizer.weight_decay"]) == ("0.15", "0.0")  # the base
    for row in table:
        run = folder / f"{int(row['trial']):04d}"
        config = OmegaConf.load(run / "config.yaml")
        assert config.optimizer.lr == float(row["optimizer.lr"])
        assert config.optimizer.weight_decay == float(row["optimizer.weight_decay"])
        assert (config.name, config.test, config.pictures) == ("learning_rate", False, {})
        assert "search" not in config
        metrics = load(run / "metrics.json")
        assert not any(name.startswith("test") for name in metrics)
        assert (row["state"], float(row["val/accuracy"])) == ("finished", metrics["val/accuracy"])
        assert float(row["seconds"]) == pytest.approx(metrics["train/seconds"], abs=0.01)
        assert row["epochs"] == "2"
        record = load(run / "run.json")
        assert record["status"] == "finished"
        assert f"optimizer.lr={row['optimizer.lr']}" in record["overrides"]
        assert not any(word.startswith("trials=") for word in record["overrides"])
        assert {word.partition("=")[0] for word in record["varied"]} <= set(row)
        assert (run / "report.html").is_file()
        assert "epoch 1/2" in (run / "run.log").read_text()
    values = [float(row["val/accuracy"]) for row in table]
    best = values.index(max(values))
    assert [file.parent.parent.name for file in folder.rglob("*.ckpt")] == [f"{best:04d}"]
    mark = " (best)" if best == 1 else ""
    assert trial_lines(done.out)[1].startswith(f"trial 1: val/accuracy {values[1]:.2%}{mark}, ")
    assert f" s: optimizer.lr={float(table[1]['optimizer.lr']):.3g}" in trial_lines(done.out)[1]
    text = " ".join(done.out.split())  # the line is wrapped
    assert f"best: trial {best} with val/accuracy {max(values):.2%} (selection bias: best of 2): " in text
    assert "epoch" not in done.out
    assert f"<strong>{max(values):.2%}</strong>" in (folder / "study.html").read_text()


@pytest.mark.slow
def test_the_best_setting_is_an_experiment_like_any_other(tune: Tune, run_script: RunScript) -> None:
    choices = ["~search.optimizer.weight_decay", "+search.model.pooling={choices:[average]}"]
    done = tune(*choices, "optimizer=sgd", "+trainer.benchmark=false", "trials=2", "study=mine")
    assert done.status == 0, done.err
    (file,) = done.folder.glob("outputs/tune/mine/experiment/*.yaml")
    text = file.read_text()
    assert text.splitlines()[1].startswith("# The result of a study of 2 trials: ")
    assert "  - override /optimizer: sgd\n" in text
    (command,) = (line.split("python scripts/train.py ")[1] for line in done.out.splitlines() if "train it:" in line)
    again = run_script("train", *command.replace("seed=0,1,2", "seed=0").split(), "report=false")
    assert again.status == 0, again.err
    (run,) = (file.parent for file in done.folder.glob("outputs/mine/**/config.yaml"))
    best = max(rows(file.parent.parent), key=lambda row: float(row["val/accuracy"]))
    folders = (run, file.parent.parent / f"{int(best['trial']):04d}")
    config, tried = (OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")) for folder in folders)
    for each in (config, tried):
        del each["trainer"]["enable_progress_bar"], each["test"], each["report"], each["pictures"]
    assert config["model"]["pooling"] == "average"
    assert config == tried
    metrics = load(run / "metrics.json")
    assert metrics["val/accuracy"] == pytest.approx(float(best["val/accuracy"]))  # the same seed, the same weights
    assert "test/accuracy" in metrics


@pytest.mark.slow
def test_a_resumed_study_equals_one_that_was_not_interrupted(tune: Tune) -> None:
    assert tune("trials=3", "study=whole").status == 0
    assert tune("trials=1", "study=parts").status == 0
    done = tune("trials=3", "study=parts")
    assert [line.split(":")[0] for line in trial_lines(done.out)] == ["trial 1", "trial 2"]
    assert "3 trials, of which 1 are done" in done.out
    whole, parts = (rows(done.folder / "outputs" / "tune" / name) for name in ("whole", "parts"))
    for one, other in zip(whole, parts, strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}
    done = tune("trials=3", "study=parts", "sampler=random", "pruner=none")  # there is nothing left to do
    assert (done.status, trial_lines(done.out)) == (0, [])


@pytest.mark.slow
def test_another_study_of_the_same_name_is_refused(tune: Tune) -> None:
    folder = tune("trials=1").folder / STUDY
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for word, fragment in (
        ("model.channels=[8]", "model.channels=[4], not [8]"),
        ("search.optimizer.lr.high=0.5", "search.optimizer.lr.high=0.1, not 0.5"),
        ("monitor=val/loss", 'monitor="val/accuracy", not "val/loss"'),
        ("+search.model.dropout={low:0.0,high:0.5}", "search.model.dropout.high=nothing, not 0.5"),
    ):
        tune("trials=2", word).assert_refused("study=learning_rate was begun with ", fragment, "study=<another name>")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_median_pruner_waits_for_two_thirds_of_the_epochs(run_script: RunScript) -> None:
    for epochs, wait in (("20", 13), ("-1", 0)):
        words = ("--cfg", "job", "-p", "pruner", "--resolve", f"trainer.max_epochs={epochs}")
        assert f"n_warmup_steps: {wait}\n" in run_script("tune", *words).out


def test_the_pruner_is_called_after_each_validation_and_ends_the_run(data_root: Path, tmp_path: Path) -> None:
    seen: dict[int, float] = {}

    def should_prune(epoch: int, value: float) -> bool:
        seen[epoch] = value
        return epoch >= 3

    run = new_run(tmp_path, "pruned")
    words = ["trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2", "pictures=none", "report=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*SMALL, f"data.root={data_root}", *words])
    training = build_training(cfg, run, extra_callbacks=[Pruning("val/accuracy", should_prune)])
    prepare_data(training)
    with pytest.raises(TrainingPruned, match="after epoch 4"):
        train(training)
    assert list(seen) == [2, 4]
    assert run.status == "pruned"
    with run.history_file.open() as file:
        logged = [float(row["val/accuracy"]) for row in csv.DictReader(file) if row["val/accuracy"]]
    assert logged[1:] == pytest.approx(list(seen.values()))  # the first is of the untrained network
    assert run.epochs == load(run.metrics_file)["epochs"] == 4
    assert not {"val/accuracy", "test/accuracy"} & load(run.metrics_file).keys()


@pytest.mark.slow
def test_bad_trials_are_pruned(tune: Tune) -> None:
    done = tune(
        "~search.optimizer.weight_decay",
        "+search.optimizer.betas={choices:[[0.9,0.99],[0.999,0.99999]]}",
        "model.channels=[8]",
        "trials=5",
        "pruner.n_startup_trials=1",
        "pruner.n_warmup_steps=0",
        "sampler=random",
    )
    assert done.status == 0, done.err
    folder = done.folder / STUDY
    pruned = [row for row in rows(folder) if row["state"] == "pruned"]
    assert pruned
    for row in pruned:
        run = folder / f"{int(row['trial']):04d}"
        assert load(run / "run.json")["status"] == "pruned"
        assert not (run / "checkpoints").exists()
        assert row["epochs"] == "1"
        assert len((run / "metrics.csv").read_text().splitlines()) == 3
        assert f"pruned after epoch 1 with val/accuracy {float(row['val/accuracy']):.2%}" in done.out
    assert any(row["optimizer.betas"] == "[0.9, 0.99]" for row in rows(folder))


def test_a_failing_trial_is_recorded_and_the_study_continues(tune: Tune) -> None:
    words = ("~search.optimizer.weight_decay", "search.optimizer.lr.low=0.001", "search.optimizer.lr.high=1e30")
    done = tune(*words, "optimizer=sgd", "monitor=val/loss", "sampler=random", "trials=2")
    assert done.status == 1
    folder = done.folder / STUDY
    good, failed = rows(folder)
    assert (good["state"], failed["state"]) == ("finished", "failed")
    assert failed["error"].startswith("the loss became ")
    assert f"failed: {failed['error']}" in done.out
    assert done.err == "1 of 2 trials failed\n"
    assert "trial 1: the loss became " in (folder / "study.html").read_text()
    assert "the training failed" in (folder / "0001" / "run.log").read_text()


@pytest.mark.slow
def test_a_systematic_error_ends_the_study(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> float:
        raise RuntimeError("out of memory\n\nand more")

    monkeypatch.setattr("fmnist.tune.trials.train_and_report", out_of_memory)
    done = tune("trials=9", "trainer.max_epochs=1")
    done.assert_refused("first 3 trials failed with the same error", "out of memory")
    assert len(trial_lines(done.out)) == 3
    monkeypatch.undo()
    assert tune("trials=4", "trainer.max_epochs=1").status == 1  # it resumes once the cause is gone


@pytest.mark.slow
def test_no_trial_begins_after_max_seconds(tune: Tune) -> None:
    done = tune("trials=9", "trainer.max_epochs=1", "max_seconds=0.01")
    assert len(trial_lines(done.out)) == 1
    assert "max_seconds=0.01: " in done.out
    assert trial_lines(tune("trials=9", "trainer.max_epochs=1", "max_seconds=0.01").out) == []


@pytest.mark.slow
def test_retraining_chooses_the_setting_with_the_best_mean(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, winner in enumerate(("trial 1", "base setting")):  # the second call has nothing left but to choose

        def retrained(*arguments: Any, winner: str = winner) -> list[float]:
            return [0.7, 0.8] if arguments[2].startswith(winner[:5].strip()) else [0.5, 0.6]

        monkeypatch.setattr("fmnist.tune.results.retrain", retrained)
        done = tune("trials=2", "retrain=2", "trainer.max_epochs=1")
        assert done.status == 0, done.err
        study = done.folder / STUDY
        rate = rows(study)[1 - place]["optimizer.lr"]
        assert f"chosen: {winner}" in done.out
        text = (study / "experiment" / "learning_rate.yaml").read_text()
        assert f"75.00% val/accuracy ({winner}: the mean of 2 fresh seeds, the best of 2)" in text
        assert f"  lr: {rate}\n" in text
        page = (study / "study.html").read_text()
        assert "<strong>75.00%</strong>" in page
        assert f"<dt>optimizer.lr</dt><dd>{float(rate):.3g}</dd>" in page


@pytest.mark.slow
def test_the_finalists_and_the_base_setting_are_retrained_with_fresh_seeds_once(tune: Tune) -> None:
    overrides = ["trials=4", "retrain=2", "finalists=2", "seed=5", "search.optimizer.lr.low=0.0001"]
    done = tune(*overrides)
    assert done.status == 0, done.err
    study = done.folder / STUDY
    best = sorted(rows(study)[1:], key=lambda row: -float(row["val/accuracy"] or 0))[:2]  # without the base setting
    runs = sorted((study / "retrained").glob("*/seed=*"))
    assert {run.parent.name for run in runs} == {"base_setting", *(f"trial_{row['trial']}" for row in best)}
    assert [OmegaConf.load(run / "config.yaml").seed for run in runs] == 3 * [6, 7]
    times = [(run / "config.yaml").stat().st_mtime_ns for run in runs]
    assert "chosen: " in tune(*overrides).out
    assert times == [(run / "config.yaml").stat().st_mtime_ns for run in runs]  # not trained again


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["sampler.n_startup_trials=-1"], ["sampler.n_startup_trials=-1", "greater than or equal to 0"]),
        (["+sampler.colour=3"], ["sampler.colour"]),
        (["sampler._target_=optuna.pruners.NopPruner"], ["sampler._target_", "BaseSampler"]),
        (["pruner=hyperband", "pruner.reduction_factor=1"], ["pruner.reduction_factor=1"]),
        (["study=intro_adam"], ["study=intro_adam", "experiment of that name"]),
        (["trainer=ddp_cpu"], ["one device", "n_jobs=2"]),
        (["sweep=dropout"], ["sweep=", "search="]),
        (["data.val_size=0"], ["data.val_size=0", "validation images"]),
        (["optimizer.lr=0.1"], ["optimizer.lr=0.1", "~search.optimizer.lr"]),
        (["search=optimizer", "optimizer=sgd"], ["optimizer=sgd: the search chooses optimizer"]),
        (["+search.model.dropout={low:0.0,high:1.5}"], ["search.model.dropout: model.dropout=1.5", "less than 1"]),
        (["+search.loss.choices=[mean_squared_error]", "monitor=val/loss"], ["monitor=val/loss", "search.loss"]),
        (["monitor=val/acuracy"], ["monitor=val/acuracy", "val/accuracy"]),
        (["storage=nonsense"], ["storage=nonsense", "URL"]),
        (["storage=sqlite:////nowhere/study.db"], ["storage=sqlite:////nowhere/study.db", "unable to open"]),
    ],
)
def test_invalid_input_is_refused_and_leaves_nothing(tune: Tune, arguments: list[str], fragments: list[str]) -> None:
    done = tune(*arguments)
    done.assert_refused(*fragments)
    assert not (done.folder / "outputs").exists()


def test_a_missing_driver_is_an_error_that_says_how_to_install_it(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    done = tune("storage=postgresql://me:secret@127.0.0.1:1/db")
    done.assert_refused("storage=postgresql://me:***@127.0.0.1:1/db", "psycopg is missing: `make extras`")
    assert not (done.folder / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        (lambda file: file.write_bytes(os.urandom(5000)), "not a database"),
        (lambda file: file.write_bytes(file.read_bytes()[:9000]), "malformed"),
        (lambda file: file.unlink(), "that its database lacks"),
    ],
)
def test_a_damaged_database_is_an_error_and_stays_as_it_is(
    tune: Tune, damage: Callable[[Path], Any], fragment: str
) -> None:
    folder = tune("trials=1").folder / STUDY
    file = folder / "study.db"
    damage(file)
    before = file.read_bytes() if file.exists() else None
    tune("trials=2").assert_refused(str(folder), fragment)
    if before is not None:
        assert file.read_bytes() == before
    assert (folder / "0000" / "metrics.json").is_file()


@pytest.mark.slow
def test_a_locked_database_is_an_error(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tune("trials=1").folder / STUDY / "study.db"
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    holder = sqlite3.connect(file)
    holder.execute("begin exclusive")
    tune("trials=2").assert_refused("study.db", "locked")
    holder.close()
    assert tune("trials=2").status == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["_create_new_trial", "set_trial_intermediate_value", "set_trial_state_values"])
def test_a_database_that_fails_for_a_moment_loses_no_trial(
    method: str, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 2)
    original, calls = getattr(storage.Storage, method), []

    def fail_once(*arguments: Any, **options: Any) -> Any:
        calls.append(method)
        if len(calls) == 3:
            raise StorageInternalError from OperationalError("select", {}, Exception("the server has gone"))
        return original(*arguments, **options)

    monkeypatch.setattr(storage.Storage, method, fail_once)
    done = tune("trials=3")
    assert (done.status, done.err) == (0, "")
    assert "the database was away for a moment" in done.out
    states = [row["state"] for row in rows(done.folder / STUDY)]
    assert states.count("finished") == 3
    assert [state for state in states if state != "finished"] == ["interrupted"] * (method != "_create_new_trial")


@pytest.mark.slow
@pytest.mark.parametrize("heartbeats", [1, 0])
def test_a_shared_database_works_alike_and_trials_of_dead_processes_are_retried(
    heartbeats: int, tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 2)
    url = f"sqlite:///{tmp_path}/shared.db"
    assert tune("trials=1", f"storage={url}").status == 0
    study_folder = tmp_path / STUDY
    assert not (study_folder / "study.db").exists()
    assert "storage=***" in load(study_folder / "0000" / "run.json")["command"]  # a URL may hold a password
    storage.quiet()
    database = storage.open_storage(url, lambda *_: None)
    study = optuna.load_study(study_name="learning_rate", storage=database)
    trial_id = database.create_new_trial(study._study_id)  # of a process on another machine, which then dies
    rate = optuna.Trial(study, trial_id).suggest_float("optimizer.lr", 0.0001, 0.1, log=True)
    for _ in range(heartbeats):
        database.record_heartbeat(trial_id)
    done = tune("trials=2", f"storage={url}")
    assert "trial 1: its process died" in done.out
    assert f": optimizer.lr={rate:.3g}" in trial_lines(done.out)[-1]
    assert [each.state for each in study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert done.status == 0


@pytest.mark.slow
@pytest.mark.parametrize("search", options("search"))
def test_every_search_contains_the_default_setting(search: str, run_script: RunScript, data_root: Path) -> None:
    data = ("data=idx", f"data.root={data_root}", "data.val_size=100")
    done = run_script("tune", f"search={search}", *data, "trainer=debug", "trials=1")
    assert done.status == 0, done.err
    assert len(trial_lines(done.out)) == 1
    (row,) = rows(done.folder / "outputs" / "tune" / search)
    assert row["state"] == "finished"  # with what the default has, which lies in each space


@pytest.mark.slow
def test_a_killed_trial_is_retried(
    tune: Tune, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "GRACE", 2)
    words = ("trials=3", "trainer.max_epochs=8")
    folder = tmp_path / STUDY
    process = start(tmp_path, data_root, *words)
    wait_until(lambda: (folder / "0001" / "metrics.csv").is_file(), process)
    process.kill()
    process.communicate()
    assert load(folder / "0001" / "run.json")["status"] == "running"
    done = tune(*words)
    assert done.status == 0, done.err
    assert "trial 1: its process died" in done.out
    table = rows(folder)
    assert [(row["trial"], row["state"]) for row in table] == [
        ("0", "finished"), ("1", "interrupted"), ("2", "finished"), ("3", "finished"),
    ]  # fmt: skip
    assert [row["optimizer.lr"] for row in table].count(table[1]["optimizer.lr"]) == 2
    assert load(folder / "0001" / "run.json")["status"] == "interrupted"
    assert not (folder / "0001" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("n_jobs", "how"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_ctrl_c_writes_the_results_so_far_and_the_study_resumes(
    tune: Tune, tmp_path: Path, data_root: Path, n_jobs: int, how: signal.Signals
) -> None:
    overrides = ("trials=4", "trainer.max_epochs=12")
    folder = tmp_path / STUDY
    process = start(tmp_path, data_root, *overrides, f"n_jobs={n_jobs}")
    wait_until(lambda: (folder / "0002" / "metrics.csv").is_file(), process)
    process.send_signal(how)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err == ""
    assert "interrupted; the same command resumes" in out
    assert "best: trial " in out
    states = [row["state"] for row in rows(folder)]
    assert "interrupted" in states
    assert (folder / "study.html").is_file()
    done = tune(*overrides)
    assert done.status == 0, done.err
    table = rows(folder)
    assert [row["state"] for row in table].count("finished") == 4
    assert [row["trial"] for row in table] == [str(number) for number in range(len(table))]


@pytest.mark.slow
def test_a_heartbeat_that_was_never_stopped_does_not_keep_the_process(tmp_path: Path) -> None:
    code = f"""
from optuna.storages._heartbeat import HeartbeatThread
from fmnist.tune import storage
storage.quiet()
storage.HEARTBEAT = 1
HeartbeatThread(1, storage.open_storage("sqlite:///{tmp_path}/study.db", print)).start()
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).stderr == b""


@pytest.mark.slow
def test_processes_started_together_share_a_study(tmp_path: Path, data_root: Path) -> None:
    processes = [start(tmp_path, data_root, "trials=6") for _ in range(2)]
    shares = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        shares.append([line.split(":")[0] for line in trial_lines(out)])
    assert sorted(shares[0] + shares[1]) == [f"trial {number}" for number in range(6)]
    assert all(shares)
    table = rows(tmp_path / STUDY)
    assert len({row["optimizer.lr"] for row in table}) == 6


@pytest.mark.slow
def test_workers_share_the_cores(tmp_path: Path, data_root: Path) -> None:
    process = start(tmp_path, data_root, "trials=4", "n_jobs=2")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(trial_lines(out)) == 4
    assert out.count("study learning_rate in") == 1
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for number in range(4):
        assert load(tmp_path / STUDY / f"{number:04d}" / "run.json")["hardware"]["threads"] == threads
