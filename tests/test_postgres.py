"""Studies in a real database server, with workers that are killed and a server that goes away."""

import csv
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import FOLDERS, Server, run_server
from processes import SCRIPT, STARTED, Started, start, wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not FOLDERS, reason="not installed: PostgreSQL (postgresql of Debian)"),
]
STUDY = Path("outputs/tune/learning_rate")
TRIALS = 8
QUICKLY = """
import runpy, sys
from fmnist.tune import storage
storage.HEARTBEAT, storage.GRACE, storage.OUTAGE = 1, 20, {outage}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    with run_server() as started:
        yield started
        while STARTED:
            STARTED.pop().end()


def tune(folder: Path, data_root: Path, url: str, *overrides: str, outage: float = 15) -> Started:
    """Start a worker of a small study, which takes a process for dead after 20 seconds."""
    small = [
        *("search=learning_rate", "data=idx", f"data.root={data_root}", "data.val_size=100", "data.batch_size=50"),
        *("trainer.accelerator=cpu", "trainer.max_epochs=20", "model.channels=[4]", f"trials={TRIALS}"),
    ]
    return start(folder, "-c", QUICKLY.format(outage=outage), str(SCRIPT.with_name("tune.py")), *small,
                 f"storage={url}", *overrides, below=[sys.executable])  # fmt: skip


def statuses(folder: Path) -> dict[str, str]:
    """Return the status of each trial's run by its folder."""
    records = {file.parent.name: json.loads(file.read_text()) for file in (folder / STUDY).glob("*/run.json")}
    return {name: record.get("status", "") for name, record in records.items()}


def have_ended(workers: list[Started]) -> bool:
    return any(worker.process.poll() is not None for worker in workers)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / STUDY / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_no_trial_is_lost_or_counted_twice(server: Server, tmp_path: Path, data_root: Path) -> None:
    workers = [tune(tmp_path, data_root, server.url) for _ in range(4)]
    wait_for(lambda: list(statuses(tmp_path).values()).count("running") == 4 or have_ended(workers))
    assert not have_ended(workers), workers
    os.kill(workers[0].process.pid, signal.SIGKILL)
    server.stop()
    server.start()
    for worker in workers[1:]:
        assert worker.status() == 0, "".join(worker.err)
        assert worker.err == []
    table = rows(tmp_path)
    assert [row["trial"] for row in table] == [str(number) for number in range(len(table))]
    dead = [
        row for row in table if row["state"] == "interrupted"
    ]  # in a trial that reports just now, also by a restart
    counted = [row for row in table if row["state"] in ("finished", "pruned")]
    assert len(dead) >= 1
    assert len(counted) == TRIALS == len(table) - len(dead)
    assert len({row["optimizer.lr"] for row in counted}) == TRIALS
    assert {row["optimizer.lr"] for row in dead} <= {row["optimizer.lr"] for row in counted}
    said = [line for worker in workers for line in worker.out if line.startswith("trial ") and "died" not in line]
    assert sorted(int(line.split(":")[0].split()[1]) for line in said) == [int(row["trial"]) for row in counted]


def test_a_server_that_stays_away_is_an_error_and_the_same_command_resumes(
    server: Server, tmp_path: Path, data_root: Path
) -> None:
    worker = tune(tmp_path, data_root, server.url, outage=2)
    wait_for(lambda: {"finished", "running"} <= {*statuses(tmp_path).values()} or have_ended([worker]))
    server.stop()
    assert worker.status(90) == 2
    (line,) = worker.errors()
    assert line.startswith(f"error: storage=postgresql+psycopg://tuner:***@127.0.0.1:{server.port}/postgres: ")
    assert "Connection refused" in line
    assert "Traceback" not in "".join(worker.err)
    unreachable = tune(tmp_path, data_root, server.url)
    assert unreachable.status() == 2
    assert "Connection refused" in unreachable.errors()[0]
    server.start()
    again = tune(tmp_path, data_root, server.url, "trials=4")
    assert again.status() == 0, "".join(again.err)
    states = [row["state"] for row in rows(tmp_path)]
    assert states.count("interrupted") == 1
    assert len(states) == 5
