"""Trackers besides TensorBoard: what they get, and that nothing depends on them."""

import csv
import json
import logging
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RunScript, press_ctrl_c
from kills import curves

from fmnist.config.keys import affects_result, can_change_on_resume
from fmnist.runs.run import Run
from fmnist.training import loggers
from fmnist.training.loggers import Place, TrackerLogger, mlflow_name
from fmnist.training.tensorboard import tag
from fmnist.training.trackers import Tracker, final_metrics, without_secrets

pytestmark = pytest.mark.filterwarnings(
    # MLflow 3.17 asks SQLAlchemy 2.1 in an old way
    "ignore:The ``noload`` loader strategy:DeprecationWarning",
)
QUICK_RUN = ("trainer.max_epochs=1", "test=false")


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path) -> Iterator[None]:
    """No account, address or choice of this machine is used, and none stays."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "COMET_"))]:
        del os.environ[name]
    os.environ["NETRC"] = str(tmp_path / "netrc")
    os.environ["COMET_CONFIG"] = str(tmp_path / "comet.config")
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic", "urllib3", "comet_ml")}
    yield
    os.environ.clear()
    os.environ.update(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def record_of(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "run.json").read_text())
    return record


def table(run: Path) -> list[dict[str, str]]:
    with (run / "csv" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


# The table


def test_csv_has_every_value_by_step_and_the_result(train: RunScript) -> None:
    done = train(*QUICK_RUN, "logger=csv")
    assert done.status == 0, done.err
    assert done.err == ""
    rows = table(done.run)
    metrics = json.loads((done.run / "metrics.json").read_text())
    assert [row["step"] for row in rows if row["train/loss_step"]] == ["4", "9"]
    assert [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]] == pytest.approx(
        [value for _, value in curves(done.run)["accuracy/val"]]
    )
    assert float(rows[-1]["final/val/accuracy"]) == metrics["val/accuracy"]
    assert rows[-1]["step"] == "10"
    assert "trackers" not in record_of(done.run)
    assert "model.dropout: " in (done.run / "csv" / "hparams.yaml").read_text()


def test_tensorboard_is_the_same_with_others(train: RunScript) -> None:
    done = train(*QUICK_RUN, "logger=csv", "name=with", "pictures=default")
    other = train(*QUICK_RUN, "name=without", "pictures=default")
    assert done.status == other.status == 0
    (alone,) = done.folder.glob("outputs/without/*")
    (run,) = done.folder.glob("outputs/with/*")
    assert curves(run).keys() == curves(alone).keys()
    assert curves(run)["loss/train"] == curves(alone)["loss/train"]
    assert curves(run)["result/val/accuracy"] == curves(alone)["result/val/accuracy"]


# All of them in one run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first test that uses `tracked_run` keeps it for the others."""
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture
def tracked_run(shared: Path, train: RunScript) -> Path:
    """The folder of a run of two epochs with every tracker."""
    for package in ("mlflow", "wandb", "comet_ml"):
        pytest.importorskip(package)
    if not any(shared.iterdir()):
        tags = ("logger.wandb.tags=[one]", "logger.comet.tags=[one]", "logger.mlflow.tags={purpose: trial}")
        done = train("logger=[mlflow,wandb,comet,csv]", *tags, "report=true", f"outputs={shared}")
        assert (done.status, done.err) == (0, "")
    (run,) = shared.glob("train/*")
    return run


def client(outputs: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{outputs}/mlflow.db")


def runs_of(store: Any, experiment: str = "fmnist") -> list[Any]:
    found = store.get_experiment_by_name(experiment)
    runs: list[Any] = store.search_runs([found.experiment_id], order_by=["attributes.start_time"])
    return runs


def metrics_of(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


@pytest.mark.extras
def test_mlflow_has_settings_curves_result_tags_and_report(tracked_run: Path, tmp_path: Path) -> None:
    store = client(tracked_run.parents[1])
    (found,) = runs_of(store)
    assert found.info.run_name == tracked_run.name
    assert found.info.status == "FINISHED"
    assert record_of(tracked_run)["trackers"]["mlflow"] == found.info.run_id
    params = found.data.params
    assert params["optimizer._target_"] == "torch.optim.AdamW"
    assert (params["model.channels"], params["seed"]) == ("[4, 8]", "0")
    assert found.data.tags["purpose"] == "trial"
    assert found.data.tags["folder"] == str(tracked_run)
    metrics = metrics_of(tracked_run)
    assert found.data.metrics["final/test/accuracy"] == pytest.approx(metrics["test/accuracy"])
    per_class = metrics["test/accuracy_per_class"]
    assert found.data.metrics["final/test/accuracy_per_class/T-shirt/top"] == per_class["T-shirt/top"]
    points = curves(tracked_run)
    for name in ("train/loss", "train/loss_step", "val/accuracy", "train/accuracy_per_class/Bag"):
        history = store.get_metric_history(found.info.run_id, name)
        assert {point.step: point.value for point in history} == pytest.approx(dict(points[tag(name)]))
    (report,) = store.list_artifacts(found.info.run_id)
    downloaded = store.download_artifacts(found.info.run_id, report.path, str(tmp_path))
    assert Path(downloaded).read_bytes() == (tracked_run / "report.html").read_bytes()
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.extras
def test_wandb_offline_has_settings_curves_result_tags_and_report(tracked_run: Path) -> None:
    records = wandb_records(tracked_run)
    (begun, *_) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name, list(begun.tags)) == ("fmnist", tracked_run.name, ["one"])
    assert record_of(tracked_run)["trackers"]["wandb"] == begun.run_id
    config = {}
    for record in records:
        for update in (record.config.update, record.run.config.update):
            config |= {item.key: json.loads(item.value_json) for item in update}
    assert config["model"]["channels"] == [4, 8]
    history = wandb_history(records)
    points = [(row["trainer/global_step"], row["val/accuracy"]) for row in history if "val/accuracy" in row]
    assert dict(points) == pytest.approx(dict(curves(tracked_run)["accuracy/val"]))
    assert history[-1]["final/test/accuracy"] == metrics_of(tracked_run)["test/accuracy"]
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [0]
    assert "report.html" in str(records)
    assert not [path for path in tracked_run.rglob("*") if path.is_symlink()]  # which couldn't be resumed


@pytest.mark.extras
def test_comet_offline_has_settings_curves_result_tags_and_report(tracked_run: Path) -> None:
    (archive,) = tracked_run.glob("comet/*.zip")
    assert archive.name.startswith(record_of(tracked_run)["trackers"]["comet"])
    with zipfile.ZipFile(archive) as content:
        messages = [json.loads(line)["payload"] for line in content.read("messages.json").splitlines()]
        report = (tracked_run / "report.html").read_bytes()
        assert any(report == content.read(name) for name in content.namelist())
    points = [
        (message["metric"]["step"], float(message["metric"]["metricValue"]))
        for message in messages
        if (message.get("metric") or {}).get("metricName") == "val/accuracy"
    ]
    assert dict(points) == pytest.approx(dict(curves(tracked_run)["accuracy/val"]))
    for expected in ("final/test/accuracy", "optimizer.lr", '"one"', tracked_run.name, "finished"):
        assert expected in json.dumps(messages)


def wandb_records(run: Path) -> list[Any]:
    """What a run has written for W&B, of all its parts."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
    return found


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, whose first 7 bytes are W&B's own."""
    position, record = 7, b""
    while position + 7 <= len(content):
        if (left := -position % 32768) and left < 7:  # no header crosses the end of a block
            position += left
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    rows = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]


# Sweeps and resumed runs


@pytest.fixture
def outputs(tracked_run: Path, tmp_path: Path) -> Path:
    """A folder of all runs with a store of MLflow, which it takes seconds to make."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    shutil.copy(tracked_run.parents[1] / "mlflow.db", folder)
    return folder


@pytest.mark.extras
def test_a_resumed_run_continues_its_run(train, run_script, outputs: Path, at_batch) -> None:
    with at_batch(15, press_ctrl_c).context() as patch:
        done = train("logger=[mlflow,wandb,csv]", "test=false", "name=mine", "logger.mlflow.experiment_name=mine")
        patch.undo()
    assert done.status == 130
    store, ids = client(outputs), record_of(done.run)["trackers"]
    (found,) = runs_of(store, "mine")
    assert found.info.status == "KILLED"
    done = run_script("train", f"resume={done.run}", "trainer.max_epochs=3")
    assert (done.status, done.err) == (0, "")
    assert record_of(done.run)["trackers"] == ids
    points = curves(done.run)["accuracy/val"]
    (again,) = runs_of(store, "mine")
    assert again.info.run_id == found.info.run_id == ids["mlflow"]
    assert again.info.status == "FINISHED"
    assert again.data.params["trainer.max_epochs"] == "2"
    assert again.data.tags["resumed.trainer.max_epochs"] == "3"
    history = store.get_metric_history(again.info.run_id, "val/accuracy")
    assert {point.step: point.value for point in history} == pytest.approx(dict(points))
    steps = [int(row["step"]) for row in table(done.run) if row["val/accuracy"]]
    assert steps == [step for step, _ in points]
    assert len([*done.run.glob(f"wandb/offline-run-*-{ids['wandb']}")]) == 2


@pytest.mark.extras
def test_each_job_of_a_sweep_is_a_run_of_its_own(train: RunScript, outputs: Path) -> None:
    done = train("-m", "seed=0,1", "logger=[mlflow,wandb]", "logger.mlflow.experiment_name=jobs", *QUICK_RUN)
    assert done.status == 0, done.err
    runs = runs_of(client(outputs), "jobs")
    assert [run.info.run_name for run in runs] == ["seed=0", "seed=1"]
    assert [run.data.params["seed"] for run in runs] == ["0", "1"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    jobs = sorted(done.folder.glob("outputs/train/sweep_seed*/seed=*"))
    assert {run.data.tags["sweep"] for run in runs} == {jobs[0].parent.name}
    for job in jobs:
        begun = next(record.run for record in wandb_records(job) if record.WhichOneof("record_type") == "run")
        known = (begun.run_id, begun.display_name, begun.run_group)
        assert known == (record_of(job)["trackers"]["wandb"], job.name, job.parent.name)
    assert record_of(jobs[0])["trackers"]["wandb"] != record_of(jobs[1])["trackers"]["wandb"]


def test_a_sweep_is_the_same_one_with_another_tracker(train: RunScript) -> None:
    assert train("-m", "seed=0", "logger=csv", *QUICK_RUN).status == 0
    done = train("-m", "seed=0", *QUICK_RUN)
    assert "already finished" in done.out


def test_metric_names_are_those_that_mlflow_takes() -> None:
    names = {"val/T-shirt/top": "val/T-shirt/top", "a/é": "a/_", "/x": "x", "a//b": "a/b", "a/../b": "b", "a:b": "a_b"}
    assert {name: mlflow_name(name) for name in names} == names


# Trackers that fail


class Failing(TrackerLogger):
    """Fails, or takes long, at a point of its life."""

    name = version = "failing"

    def __init__(self, place: Place, at: str, error: BaseException | None, log_for: list[Any]) -> None:
        super().__init__()
        self.at, self.error, self.log_for = at, error, log_for
        self._reached("open")

    def _reached(self, where: str) -> None:
        self.log_for.append(where)
        if self.at == where:
            if self.error is None:
                time.sleep(60)
            raise self.error or AssertionError

    def log_hyperparams(self, params: Any) -> None:
        self._reached("settings")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._reached("metrics")

    def end(self, status: str | None) -> None:
        self._reached(f"end {status}")


def failing(folder: Path, at: str, error: BaseException | None, patience: float = 0.3) -> Tracker:
    seen: list[Any] = []
    tracker = Tracker("it", lambda place: Failing(place, at, error, seen), None, Run(folder), folder, None, patience)  # type: ignore[arg-type]
    tracker.seen = seen  # type: ignore[attr-defined]
    return tracker


@pytest.mark.parametrize("at", ["open", "settings", "metrics", "end finished"])
@pytest.mark.parametrize("error", [None, ConnectionError("no route\n\nmore"), SystemExit(3)], ids=str)
def test_a_tracker_that_fails_or_hangs_is_left_with_one_warning(
    at: str, error: BaseException | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = failing(tmp_path, at, error)
    begun = time.monotonic()
    tracker.log_hyperparams({"seed": 0})
    for step in range(5):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.close("finished")
    assert time.monotonic() - begun < 3
    (warning,) = caplog.messages
    reason = "no answer for 0 seconds" if error is None else "no route" if isinstance(error, OSError) else "3"
    assert warning == f"logger=it: {reason}; the run continues without it"
    seen = len(tracker.seen)
    tracker.log_metrics({"loss": 1.0}, 6)
    tracker.close("finished")
    assert len(tracker.seen) == seen
    assert len(caplog.messages) == 1


def test_a_tracker_that_had_nothing_to_do_gets_its_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = failing(tmp_path, "never", None)
    tracker.log_metrics({"loss": 1.0}, 0)
    time.sleep(0.5)
    tracker.close(None)
    tracker.log_metrics({"loss": 1.0}, 1)  # opened again, as after the processes of a run have ended
    tracker.close("interrupted")
    assert tracker.seen == ["open", "metrics", "end None", "open", "metrics", "end interrupted"]
    assert caplog.messages == []
    assert json.loads((tmp_path / "run.json").read_text())["trackers"] == {"it": "failing"}


def test_an_odd_name_in_the_record_of_a_stranger_is_not_used(tmp_path: Path) -> None:
    for known in ("../../x", 3, ["a"], "x" * 99):
        (tmp_path / "run.json").write_text(json.dumps({"trackers": {"it": known}}))
        places: list[Place] = []

        def make(place: Place, places: list[Place] = places) -> Failing:
            places.append(place)
            return Failing(place, "", None, [])

        tracker = Tracker("it", make, None, Run(tmp_path), tmp_path, None, 1)
        tracker.log_metrics({}, 0)
        tracker.close()
        assert places[0].id is None


@pytest.mark.extras
def test_a_server_that_refuses_or_hangs_ends_no_training(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("fmnist.config.trackers.REMOTE_PATIENCE", 0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@{address}")
        done = train(*QUICK_RUN, "logger=mlflow", "name=hangs")
        assert done.status == 0
        assert done.err == "logger=mlflow: no answer for 0 seconds; the run continues without it\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@{address}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("fmnist.config.trackers.REMOTE_PATIENCE", 10)
    done = train(*QUICK_RUN, "logger=mlflow", "name=refuses")
    assert done.status == 0
    (line,) = done.err.splitlines()
    assert line.startswith(f"logger=mlflow: API request to http://***@{address}/")
    assert "Connection refused" in line
    for file in (done.folder / "outputs").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file


# Keys and passwords


def test_messages_hold_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcdef123")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    text = "401 for key abcdef123 at https://me:secret@host:1/x?y=me@x, hunter2"
    assert without_secrets(text) == "401 for key *** at https://***@host:1/x?y=me@x, ***"


SECRET_WORDS = [
    "+logger.comet.api_key=hunter2",
    "++logger.wandb.settings={api_key: hunter2}",
    "+logger.mlflow.tracking_uri=http://me:hunter2@host",
    "logger.mlflow.tags={password: hunter2}",
    "logger.mlflow.experiment_name='https://me:hunter2@host'",
]


@pytest.mark.parametrize("word", SECRET_WORDS)
def test_a_key_in_the_config_is_refused_and_kept_nowhere(word: str, train: RunScript) -> None:
    for flags in ((), ("-m", "seed=0,1")):
        done = train(*flags, "logger=[wandb,mlflow,comet]", word)
        done.assert_refused("logger.", "must not be given", "WANDB_API_KEY", "docs/trackers.md")
        assert "hunter2" not in done.err + done.out
        assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize("part", ["deep: {my_token: hunter2}", "notes: 'http://me:hunter2@host'", "base_url: hunter2"])
def test_a_key_in_a_file_is_refused_and_kept_nowhere(part: str, train: RunScript, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "logger"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(f"csv: {{_target_: fmnist.training.loggers.Csv, {part}}}")
    done = train("-m", "seed=0", "logger=own", f"--config-dir={tmp_path / 'mine'}")
    assert done.status in (1, 2)
    assert "logger.csv." in done.out + done.err
    assert "hunter2" not in done.err + done.out
    for file in (tmp_path / "outputs").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()


# Invalid input that needs the packages, or their absence; more is in test_wrong_input.py


@pytest.mark.extras
@pytest.mark.parametrize(
    ("word", "fragments"),
    [
        ("logger.wandb.project=null", ["logger.wandb.project=null: is required"]),
        ("logger.wandb.tags=fast", ["logger.wandb.tags=fast: must be"]),
        ("logger.wandb.offline=maybe", ["logger.wandb.offline=maybe: must be true or false"]),
        ("+logger.wandb.grup=x", ["logger.wandb.grup: there is no such argument"]),
        ("logger.wandb.offline=false", ["logger.wandb: no key is known", "WANDB_API_KEY", "offline=null"]),
        ("logger.comet.online=true", ["logger.comet: no key is known", "COMET_API_KEY", "online=null"]),
        ("logger.comet.tags={a: b}", ["logger.comet.tags"]),
        ("logger.mlflow.experiment_name=''", ["logger.mlflow.experiment_name=", "at least 1 character"]),
        ("logger.mlflow.tags=[a]", ["logger.mlflow.tags=", "must be"]),
        ("logger.mlflow.tags={a: 1}", ["logger.mlflow.tags=", "a string"]),
    ],
)
def test_invalid_keys_of_trackers(word: str, fragments: list[str], train: RunScript) -> None:
    for package in ("mlflow", "wandb", "comet_ml"):
        pytest.importorskip(package)
    done = train(f"logger={word.lstrip('+').split('.')[1]}", word)
    done.assert_refused(*fragments)
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "comet"])
def test_a_missing_package_is_named_with_what_installs_it(
    name: str, train: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmnist.training.loggers.base.importlib.util.find_spec", lambda _: None)
    done = train(f"logger={name}")
    done.assert_refused(f"logger.{name}: the package {name}", "`make extras`", f'pip install "fmnist[{name}]"')
    assert not (done.folder / "outputs").exists()


# Facts of the config


def test_a_tracker_makes_no_difference_to_the_result_and_can_change_on_resume() -> None:
    assert not affects_result("logger.mlflow.experiment_name")
    assert can_change_on_resume("logger")


def test_a_resumed_run_can_leave_its_tracker_or_get_another(train, run_script) -> None:
    done = train(*QUICK_RUN, "logger=csv")
    rows = table(done.run)
    done = run_script("train", f"resume={done.run}", "logger=none", "trainer.max_epochs=2")
    assert (done.status, done.err) == (0, "")
    assert table(done.run) == rows
    done = run_script("train", f"resume={done.run}", "logger=csv", "trainer.max_epochs=3")
    assert (done.status, done.err) == (0, "")
    assert [row["step"] for row in table(done.run) if row["val/accuracy"]] == ["0", "9", "29"]


def test_final_metrics_are_numbers_with_a_name_each() -> None:
    metrics = {"test/accuracy": 0.5, "checkpoint": "best.ckpt", "a": {"Bag": 1, "b": True}, "epochs": 3}
    assert final_metrics(metrics) == {"final/test/accuracy": 0.5, "final/a/Bag": 1, "final/epochs": 3}


@pytest.mark.parametrize(
    ("variables", "netrc", "local"),
    [
        ({}, "", True),
        ({"WANDB_API_KEY": "x"}, "", False),
        ({}, "machine api.wandb.ai login user password x", False),
        ({"WANDB_BASE_URL": "http://own:80"}, "machine api.wandb.ai login user password x", True),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, "", True),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "online"}, "", False),
        ({}, "machine", True),
    ],
)
def test_wandb_is_offline_without_a_key(
    variables: dict[str, str], netrc: str, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Path(os.environ["NETRC"]).write_text(netrc)
    assert loggers.Wandb.is_local() is local
    assert loggers.Wandb.is_local(offline=True)


def test_comet_is_offline_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loggers.Comet.is_local()
    Path(os.environ["COMET_CONFIG"]).write_text("[comet]\napi_key=x\n")
    assert not loggers.Comet.is_local()
    assert loggers.Comet.is_local(online=False)
    Path(os.environ["COMET_CONFIG"]).unlink()
    monkeypatch.setenv("COMET_API_KEY", "x")
    assert not loggers.Comet.is_local()


@pytest.mark.slow
def test_several_processes_write_one_run(train: RunScript) -> None:
    done = train("trainer=ddp_cpu", "trainer.devices=2", "logger=csv", *QUICK_RUN)
    assert (done.status, done.err) == (0, "")
    rows = table(done.run)
    assert [row["step"] for row in rows if row["val/accuracy"]] == ["0", "9"]
    assert float(rows[-1]["final/val/accuracy"]) == metrics_of(done.run)["val/accuracy"]
