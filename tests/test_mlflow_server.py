"""Runs on a real MLflow server of this machine. It needs the package mlflow: its part mlflow-skinny has no server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunScript
from kills import curves

PYTHON = os.environ.get("FMNIST_MLFLOW_PYTHON", sys.executable)
"""The interpreter that has the package."""
pytestmark = [pytest.mark.slow, pytest.mark.extras]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server that ends with the test."""
    if subprocess.run([PYTHON, "-c", "import mlflow, flask, uvicorn"], capture_output=True).returncode:
        pytest.skip("pip install mlflow, or FMNIST_MLFLOW_PYTHON=<the interpreter that has it>")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/server"]
    host, port = address.split(":")
    command = [PYTHON, "-m", "mlflow", "server", "--host", host, "--port", port, "--workers", "1", *store]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://{address}/health", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        yield f"http://{address}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.wait()


def test_a_run_on_a_server(server: str, train: RunScript, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setattr("fmnist.config.trackers.REMOTE_PATIENCE", 60)  # a machine under tests is slow
    done = train("logger=mlflow", "report=true")
    assert (done.status, done.err) == (0, "")
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("fmnist")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == (done.run.name, "FINISHED")
    assert found.data.params["model.dropout"] == "0.05"
    history = client.get_metric_history(found.info.run_id, "val/accuracy")
    assert {point.step: point.value for point in history} == pytest.approx(dict(curves(done.run)["accuracy/val"]))
    assert "final/test/accuracy" in found.data.metrics
    (report,) = client.list_artifacts(found.info.run_id)
    downloaded = client.download_artifacts(found.info.run_id, report.path, str(tmp_path))
    assert Path(downloaded).read_bytes() == (done.run / "report.html").read_bytes()
    assert not (tmp_path / "outputs" / "mlflow.db").exists()
