"""The folder of a run."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fmnist.runs import provenance
from fmnist.runs.run import Run, RunIsBusy, claim_run, new_run, open_run


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run(tmp_path, "sweep").folder, range(64)))
    assert set(folders) == set((tmp_path / "sweep").iterdir())
    assert len(set(folders)) == 64


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a\0b"])
def test_name_that_no_folder_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^name=.*: must be the name of a folder"):
        new_run(tmp_path / "outputs", name)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(("outputs", "name"), [("file/below", "a"), (".", "file"), (".", "x" * 300)])
def test_outputs_that_cannot_be_written_to_are_refused(tmp_path: Path, outputs: str, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"^outputs={tmp_path / outputs}: can't make a run folder there: "):
        new_run(tmp_path / outputs, name)


def test_folder_of_a_job_is_taken_only_if_nobody_else_needs_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.update_record(status="failed", error="no space")
    with run.locked(), pytest.raises(RunIsBusy, match="another process is writing"):
        claim_run(tmp_path)
    claim_run(tmp_path).history_file.write_text("epoch\n")  # an earlier attempt is removed
    assert [*tmp_path.iterdir()] == [run.history_file]
    with pytest.raises(ValueError, match=f"^{tmp_path} is not empty"):
        claim_run(tmp_path)
    assert run.history_file.exists()


def test_open_run_refuses_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^resume={tmp_path / 'none'}: there is no such folder$"):
        open_run("resume", tmp_path / "none")
    with pytest.raises(ValueError, match=f"^run={tmp_path} is not a run folder: it has no config.yaml$"):
        open_run("run", str(tmp_path))
    (tmp_path / "config.yaml").write_text("name: a\n")
    assert open_run("run", str(tmp_path)).folder == tmp_path


def test_a_folder_of_several_runs_is_none_of_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Run(tmp_path / "train" / name).folder.mkdir(parents=True)
        Run(tmp_path / "train" / name).config_file.write_text("name: a\n")
        Run(tmp_path / "train" / name).update_record(status="finished")
    assert open_run("run", tmp_path / "train" / "a" / "config.yaml").folder == tmp_path / "train" / "a"
    with pytest.raises(ValueError, match=f"^run={tmp_path} holds several runs: name one of them, as {tmp_path}/train"):
        open_run("run", tmp_path)


@pytest.mark.parametrize("content", [b"a: 1\na: [1\nb: }\n", b"- 1\n- 2\n", b"a: \xff\n"])
def test_config_that_is_damaged_is_refused_in_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'config.yaml'} [^\n]*$"):
        Run(tmp_path).load_config()


def test_record_is_updated_entry_by_entry(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert (run.load_record(), run.status) == ({}, None)
    run.update_record(status="running", seed=3)
    run.update_record(status="finished", end="later")
    assert run.load_record() == {"status": "finished", "seed": 3, "end": "later"}
    run.record_file.write_text('{"status": ')
    run.update_record(seed=4)
    assert run.load_record() == {"seed": 4}
    assert (tmp_path / "run.json.damaged").read_text() == '{"status": '


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("run.json", lambda run: run.status),
        ("run.json", lambda run: run.update_record(seed=4)),
        ("metrics.json", Run.load_metrics),
        ("metrics.csv", lambda run: run.epochs),
        ("config.yaml", Run.load_config),
    ],
)
def test_file_that_the_system_cannot_read_now_is_neither_missing_nor_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, use: Callable[[Run], object]
) -> None:
    run = Run(tmp_path)
    run.update_record(status="running")
    run.save_metrics({"epochs": 2})
    run.save_config({"name": "a"})
    run.history_file.write_text("epoch\n1\n2\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path / name}'"):
        use(run)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run.epochs == 2


def test_table_that_is_damaged_is_refused_with_its_name(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.epochs == 0
    run.history_file.write_bytes(b"epoch\n\xff\n")
    with pytest.raises(ValueError, match=f"^{run.history_file} is damaged: "):
        _ = run.epochs


def test_discard_removes_the_run_and_the_empty_folders_above_it(tmp_path: Path) -> None:
    kept, run = new_run(tmp_path / "outputs", "a"), new_run(tmp_path / "outputs", "a")
    kept.update_record(status="finished")
    run.discard()
    assert list((tmp_path / "outputs" / "a").iterdir()) == [kept.folder]
    kept.discard()
    assert not list(tmp_path.iterdir())


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".run.json.123", "checkpoints/.last.ckpt.7", ".mine.txt.old", "run.json"):
        (tmp_path / name).touch()
    Run(tmp_path).remove_temp_files()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".mine.txt.old", "run.json"]


def test_git_state_is_that_of_a_checkout_with_the_files(tmp_path: Path) -> None:
    for command in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@example.org"]):
        provenance._git(tmp_path, *command)
    (tmp_path / "code.py").touch()
    provenance._git(tmp_path, "add", ".")
    provenance._git(tmp_path, "commit", "-qm", "code")
    installed = tmp_path / ".venv" / "fmnist"
    installed.mkdir(parents=True)
    assert provenance.git_state(installed) is None
    state = provenance.git_state(tmp_path)
    assert state
    assert (len(state["commit"]), state["clean"]) == (40, True)


@pytest.mark.parametrize(
    ("record", "varied"),
    [
        ({"overrides": ["seed=1"], "resumed": [{"overrides": ["monitor=val/loss"]}]}, ["seed=1", "monitor=val/loss"]),
        ({"overrides": ["seed=1", "optimizer=sgd"], "varied": ["seed=1"]}, ["seed=1"]),
        ({"resumed": [1]}, []),
        ([], []),
    ],
    ids=["resumed", "job of a sweep", "foreign", "damaged"],
)
def test_varied_overrides_are_those_that_other_runs_may_not_have(
    tmp_path: Path, record: object, varied: list[str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert Run(tmp_path).varied == varied
