"""A run folder from a stranger, gone on with."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunScript
from omegaconf import OmegaConf
from test_trust import HOSTILE, everything

RUN = ("trainer.max_epochs=1", "test=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def run(trained: Path, tmp_path: Path, train: RunScript) -> Path:
    if not any(trained.iterdir()):
        shutil.copytree(train(*RUN).run, trained / "run")
        shutil.rmtree(tmp_path / "outputs")
    return shutil.copytree(trained / "run", tmp_path / "run")


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"date"}))  # which OmegaConf takes for a text
@pytest.mark.parametrize("script", ["train", "report"])
def test_a_hostile_config_file_is_refused(
    run: Path, run_script: RunScript, tmp_path: Path, name: str, script: str
) -> None:
    text = HOSTILE[name]
    (run / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = everything(run)
    key = {"train": "resume", "report": "run"}[script]
    run_script(script, f"{key}={run}", *(["trainer.max_epochs=2"] if script == "train" else [])).assert_refused(
        "config.yaml"
    )
    assert before == everything(run)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "key", ["model", "loss", "optimizer", "scheduler", "trainer", "augment", "data", "pictures", "callbacks.x"]
)
def test_a_config_file_that_names_what_does_not_belong_there(
    run: Path, run_script: RunScript, tmp_path: Path, key: str
) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    node = OmegaConf.select(cfg, key) or {}
    OmegaConf.update(cfg, key, {**node, "_target_": "os.system", "command": "touch trace"}, force_add=True)
    OmegaConf.save(cfg, run / "config.yaml")
    done = run_script("train", f"resume={run}", "trainer.max_epochs=2")
    done.assert_refused(f"{key}._target_=os.system")
    assert not (tmp_path / "trace").exists()


def test_a_hydra_node_in_a_config_file_is_not_heard(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write("hydra: {launcher: {_target_: os.system, command: touch trace}, run: {dir: elsewhere}}\n")
    assert run_script("train", f"resume={run}", "trainer.max_epochs=2").status == 0
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["run.log", ".lock", "metrics.csv", "checkpoints/last.ckpt", "report.html"])
def test_a_link_in_a_run_folder_is_not_written_through(
    run: Path, run_script: RunScript, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    run_script("train", f"resume={run}", "trainer.max_epochs=2").assert_refused(name, "is a link")
    assert precious.read_text() == "mine"


def test_a_report_is_not_written_through_a_link(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("report.html", f".report.html.{os.getpid()}"):
        (run / name).symlink_to(precious)
    assert run_script("report", f"run={run}", "split=val").status == 0
    assert precious.read_text() == "mine"


def test_a_record_nested_without_end_is_refused(run: Path, run_script: RunScript) -> None:
    (run / "run.json").write_text("[" * 100_000)
    run_script("train", f"resume={run}", "trainer.max_epochs=2").assert_refused("run.json")


def test_names_that_climb_lead_nowhere(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text()
    climbing = text.replace("name: train", "name: ../../../x").replace("outputs: outputs", "outputs: ../../../y")
    assert climbing != text
    (run / "config.yaml").write_text(climbing)
    around = {path for path in tmp_path.rglob("*") if run not in path.parents}
    assert run_script("train", f"resume={run}", "trainer.max_epochs=2").status == 0
    assert run_script("report", f"run={run}", "split=val").status == 0
    assert {path for path in tmp_path.rglob("*") if run not in path.parents} == around
