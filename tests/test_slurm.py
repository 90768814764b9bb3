"""Runs and sweeps on a real SLURM cluster, of this machine alone: see slurm_cluster.py."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from processes import QUIET, SCRIPT, STARTED, Started, start, wait_for
from slurm_cluster import NODES, Cluster, missing, run_cluster

from fmnist.runs.run import Run

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        bool(missing()), reason=f"not installed: {', '.join(missing())} (slurm-wlm and munge of Debian)"
    ),
]
DOCS = SCRIPT.parent.parent / "docs" / "scale.md"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture(autouse=True)
def ended(cluster: Cluster) -> Iterator[None]:
    """Whatever a test has started ends with it."""
    yield
    while STARTED:
        STARTED.pop().end()
    cluster.clear()


@pytest.fixture
def overrides(data_root: Path) -> list[str]:
    return [
        *("data=idx", f"data.root={data_root}", "data.val_size=101", "data.batch_size=75"),
        *("model.channels=[4,8]", "trainer.precision=32-true", "pictures=none", "report=false"),
    ]


def train(cluster: Cluster, folder: Path, *overrides: str, below: str = "") -> Started:
    """Start a training, by a command of SLURM if one is given."""
    command = [*below.split(), sys.executable]
    return start(folder, str(SCRIPT), *overrides, below=command, **cluster.environment)


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("outputs/**/checkpoints/last.ckpt"))


def only_run(folder: Path) -> Run:
    (config,) = folder.glob("outputs/*/*/config.yaml")
    return Run(config.parent)


def record(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.record_file.read_text())
    return found


def script_of_the_docs(folder: Path) -> Path:
    """Write the script of docs/scale.md, with a process on each of two nodes, into a folder that has what it needs."""
    text = re.search(r"^    #!/bin/bash\n(?:    .*\n|\n)+", DOCS.read_text(), re.MULTILINE)
    assert text
    script = re.sub("^    ", "", text[0], flags=re.MULTILINE).rstrip() + "\n"
    for documented, here in {
        "--ntasks-per-node=4": "--ntasks-per-node=1",
        "--gpus-per-node=4": "--gpus-per-node=1",
        "--cpus-per-task=8": "--cpus-per-task=1",
        "trainer=ddp trainer.devices=4": "trainer=ddp_cpu trainer.devices=1",
        ". .venv/bin/activate": f'PATH="{Path(sys.executable).parent}:$PATH"',
    }.items():
        assert script.count(documented) == 1
        script = script.replace(documented, here)
    (folder / "scripts").symlink_to(SCRIPT.parent)
    (folder / "run.sbatch").write_text(script)
    return folder / "run.sbatch"


def test_the_job_of_the_docs_resumes_after_sigterm_and_after_a_lost_node(
    cluster: Cluster, tmp_path: Path, overrides: list[str]
) -> None:
    script = script_of_the_docs(tmp_path)
    submit = ["sbatch", "--parsable", str(script), *overrides, "trainer.max_epochs=60"]
    environment = {**os.environ, **QUIET, **cluster.environment}
    job = subprocess.run(submit, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    job = job.strip()
    wait_for(lambda: checkpoints(tmp_path))
    cluster("scancel", "--signal=TERM", job)  # as SLURM does before the time is over
    run = only_run(tmp_path)
    wait_for(lambda: run.status == "interrupted")
    epochs = run.epochs
    wait_for(lambda: run.epochs > epochs)
    cluster("scontrol", "update", f"nodename={NODES[1]}", "state=down", "reason=test")
    wait_for(lambda: cluster.job(job)["JobState"] == "PENDING")
    cluster("scontrol", "update", f"nodename={NODES[1]}", "state=resume")
    wait_for(lambda: cluster.job(job)["JobState"] == "COMPLETED")
    assert only_run(tmp_path).status == "finished"
    assert len(record(run)["resumed"]) == 2
    assert run.epochs == 60
    assert (tmp_path / f"slurm-{job}.out").read_text().count("epoch 60/60") == 1


def test_the_jobs_of_a_sweep_save_a_checkpoint_when_slurm_ends_them(
    cluster: Cluster, tmp_path: Path, overrides: list[str]
) -> None:
    pytest.importorskip("submitit")
    command = [*overrides, "sweep=slurm", "trainer=cpu", "trainer.max_epochs=80", "seed=0,1"]
    sweep = train(cluster, tmp_path, *command)
    wait_for(lambda: len(checkpoints(tmp_path)) == 2 or sweep.process.poll() is not None)
    array = cluster("squeue", "--noheader", "--array", "--format=%F").split()[0]
    cluster("scancel", f"{array}_0")
    cluster("scancel", "--signal=USR2", f"{array}_1")  # as submitit lets SLURM do before the time is over
    assert sweep.status() == 1
    assert "2 jobs: 1 finished, 1 interrupted; the same command runs the rest\n" in sweep.err
    assert "Traceback" not in "".join(sweep.err)
    runs = {file.parent.name: Run(file.parent) for file in tmp_path.glob("outputs/train/*/*/run.json")}
    assert runs["seed=0"].status == "interrupted"
    assert runs["seed=1"].status == "finished"
    assert len(record(runs["seed=1"])["resumed"]) == 1
    again = train(cluster, tmp_path, *command)
    assert again.status() == 0, "".join(again.err)
    assert len(record(runs["seed=0"])["resumed"]) == 1


def test_in_an_interactive_allocation_a_run_starts_its_own_processes(
    cluster: Cluster, tmp_path: Path, overrides: list[str]
) -> None:
    short = [*overrides, "trainer.max_epochs=1", "test=false"]
    alone = train(cluster, tmp_path, *short, "trainer=ddp_cpu", below="salloc --ntasks=2")
    assert alone.status() == 0, "".join(alone.err)
    assert "on 2 x CPU" in "".join(alone.out)
    assert only_run(tmp_path).status == "finished"


def test_a_run_of_one_process_is_alone_in_each_task_of_srun(
    cluster: Cluster, tmp_path: Path, overrides: list[str]
) -> None:
    short = " ".join([*overrides, "trainer=cpu", "trainer.max_epochs=1", "test=false"])
    command = f"{sys.executable} {SCRIPT} {short} seed=$SLURM_PROCID"
    below = ["srun", "--ntasks=2", "--nodes=1", "bash", "-c"]
    both = start(tmp_path, command, below=below, **cluster.environment)
    assert both.status() == 0, "".join(both.err)
    configs = [OmegaConf.load(file) for file in tmp_path.glob("outputs/*/*/config.yaml")]
    assert sorted(config.seed for config in configs) == [0, 1]
    assert len(list(tmp_path.glob("outputs/*/*/events*"))) >= 2


def test_a_shell_in_a_task_of_srun_trains_alone_and_is_told_whom_a_run_of_all_tasks_waits_for(
    cluster: Cluster, tmp_path: Path, overrides: list[str]
) -> None:
    command = " ".join([sys.executable, str(SCRIPT), *overrides, "trainer.max_epochs=1", "test=false"])
    (tmp_path / "typed").write_text(f"""
        [ $SLURM_PROCID = 0 ] || exit 0  # the other shells have no input, and end
        {command} trainer=cpu name=alone
        {command} trainer=ddp_cpu name=all 2> all.err &
        until grep waiting all.err; do sleep 0.2; done
        kill $!
    """)
    shell = start(tmp_path, "--quiet", "--command", "srun --ntasks=2 --nodes=1 --pty bash typed", "/dev/null",
                  below=["script"], **cluster.environment)  # fmt: skip
    assert shell.status() == 0, shell.out
    said = "".join(shell.out)
    assert "each of the 2 that srun has started is a run of its own" in said
    assert "warning: " not in said.partition("waiting")[0]
    assert "waiting for rank 1 of the 2 processes that srun has started" in said
    (run,) = tmp_path.glob("outputs/alone/*")
    assert Run(run).status == "finished"


@pytest.mark.parametrize(
    ("override", "message"),
    [("trainer.devices=3", "srun has started 2 processes, which is trainer.devices=2"), ("data.root=/nowhere", "/now")],
)
def test_an_error_is_told_once_and_ends_all_tasks(
    cluster: Cluster, tmp_path: Path, overrides: list[str], override: str, message: str
) -> None:
    given = [each for each in overrides if each.split("=")[0] != override.split("=")[0]]
    both = train(cluster, tmp_path, *given, "trainer=ddp_cpu", override, below="srun --ntasks=2 --nodes=1")
    assert both.status(60) == 2
    (line,) = [line for line in both.errors() if not line.startswith("srun: ")]
    assert message in line
    assert not list(tmp_path.glob("outputs/*/*/*"))
