"""Trackers besides TensorBoard: what they get, and that nothing depends on them."""

import csv
import json
import logging
import os
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RunScript, press_ctrl_c
from kills import curves

from fmnist.config import overrides as overrides_module
from fmnist.config.keys import affects_result, can_change_on_resume
from fmnist.runs.run import Run
from fmnist.training import loggers
from fmnist.training.loggers import Csv, Place, TrackerLogger, mlflow_name
from fmnist.training.trackers import Tracker, final_metrics, without_secrets

QUICK_RUN = ("trainer.max_epochs=1", "test=false")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
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
        [value for _, value in curves(done.run)["val/accuracy"]]
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
    assert curves(run)["train/loss"] == curves(alone)["train/loss"]
    assert curves(run)["final/val/accuracy"] == curves(alone)["final/val/accuracy"]
