import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fmnist.runs import run as runs
from fmnist.runs.run import Run, RunIsBusy, claim_run, new_run, open_run


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is made in the same second."""

    class Clock(runs.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls(2026, 3, 4, 5, 6, 7, tzinfo=tz)

    monkeypatch.setattr(runs, "datetime", Clock)


@pytest.mark.usefixtures("stopped_clock")
def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = [new_run(tmp_path / "outputs", "lenet").folder for _ in range(3)]
    stamp = "2026-03-04_05-06-07"
    assert folders == [tmp_path / "outputs" / "lenet" / name for name in (stamp, f"{stamp}_2", f"{stamp}_3")]
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.usefixtures("stopped_clock")
def test_runs_started_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run(tmp_path, "sweep").folder, range(64)))
    assert len(set(folders)) == 64
    assert set(folders) == set((tmp_path / "sweep").iterdir())


def test_run_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run(Path("outputs"), "a").folder.parent == tmp_path / "outputs" / "a"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a\0b"])
def test_name_that_no_folder_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^name=.* can't be the name of a folder"):
        new_run(tmp_path / "outputs", name)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["a b", "lr=0.1,seed=2", "größe", "-", "a..b"])
def test_other_names_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    assert new_run(tmp_path, name).folder.parent.name == name


@pytest.mark.parametrize(("outputs", "name"), [("file", "a"), ("file/below", "a"), (".", "file"), (".", "x" * 300)])
def test_outputs_that_cannot_be_written_to_are_refused(tmp_path: Path, outputs: str, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"^outputs={tmp_path / outputs}: can't make a run folder there: "):
        new_run(tmp_path / outputs, name)


def test_folder_of_a_job_is_taken_only_if_nothing_of_others_lies_there(tmp_path: Path) -> None:
    run = claim_run(tmp_path)
    assert run.folder == tmp_path
    run.history_file.write_text("epoch\n")
    with pytest.raises(ValueError, match=f"^{tmp_path} is not empty"):
        claim_run(tmp_path)
    assert run.history_file.exists()


def test_what_an_earlier_try_of_a_job_left_goes_unless_another_process_is_at_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.update_record(status="failed", error="no space")
    run.best_checkpoint.parent.mkdir()
    run.best_checkpoint.write_text("half")
    with run.locked(), pytest.raises(RunIsBusy):
        claim_run(tmp_path)
    assert run.best_checkpoint.exists()
    claim_run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_open_run_refuses_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^resume={tmp_path / 'none'}: there is no such folder$"):
        open_run("resume", tmp_path / "none")
    with pytest.raises(ValueError, match=f"^run={tmp_path} is not a run folder: it has no config.yaml$"):
        open_run("run", str(tmp_path))
    (tmp_path / "config.yaml").write_text("name: a\n")
    with pytest.raises(ValueError, match=r"^run=.*config.yaml: there is no such folder$"):
        open_run("run", tmp_path / "config.yaml")
    assert open_run("run", str(tmp_path)).folder == tmp_path


def test_everything_of_a_run_lies_in_its_folder(tmp_path: Path) -> None:
    run = Run(tmp_path)
    files = [run.config_file, run.record_file, run.metrics_file, run.history_file, run.log_file]
    assert [file.name for file in files] == ["config.yaml", "run.json", "metrics.json", "metrics.csv", "run.log"]
    assert {file.parent for file in files} == {tmp_path}
    assert run.best_checkpoint == tmp_path / "checkpoints" / "best.ckpt"
    assert run.last_checkpoint == tmp_path / "checkpoints" / "last.ckpt"


def test_chosen_checkpoint_is_the_best_where_there_is_one(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.chosen_checkpoint == run.last_checkpoint
    run.best_checkpoint.parent.mkdir()
    run.best_checkpoint.touch()
    assert run.chosen_checkpoint == run.best_checkpoint


def test_config_is_read_back_as_saved(tmp_path: Path) -> None:
    config = {"name": "a", "none": None, "list": [1, 2.5, "1e-3", True], "nested": {"b": "größe"}}
    Run(tmp_path).save_config(config)
    assert Run(tmp_path).load_config() == config


@pytest.mark.parametrize("content", [b"a: [", b"a: 1\na: [1\nb: }\n", b"- 1\n- 2\n", b"a: \xff\n"])
def test_config_that_is_none_is_refused_in_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'config.yaml'} [^\n]*$"):
        Run(tmp_path).load_config()


def test_record_keeps_what_it_is_not_told_anew(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.load_record() == {}
    assert run.status is None
    run.update_record(status="running", seed=3)
    run.update_record(status="finished", end="later")
    assert run.load_record() == {"status": "finished", "seed": 3, "end": "later"}
    assert run.status == "finished"
    assert json.loads(run.record_file.read_text()) == run.load_record()


def test_metrics_are_read_back_as_saved(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.load_metrics() == {}
    metrics = {"val/accuracy": 0.912345678901234, "per_class": {"Bag": None}}
    run.save_metrics(metrics)
    assert run.load_metrics() == metrics


def test_record_that_is_damaged_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": ')
    with pytest.raises(ValueError, match=r"run\.json can't be read"):
        Run(tmp_path).load_record()


def test_discard_removes_the_run_and_the_folders_above_it_that_are_left_empty(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    run = new_run(tmp_path / "outputs", "a")
    run.update_record(status="running")
    run.discard()
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_discard_leaves_other_runs_alone(tmp_path: Path) -> None:
    kept, run = new_run(tmp_path, "a"), new_run(tmp_path, "a")
    kept.update_record(status="finished")
    run.discard()
    assert list((tmp_path / "a").iterdir()) == [kept.folder]
    assert kept.status == "finished"


def test_a_lock_is_for_one_and_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.locked(), pytest.raises(ValueError, match="another process is writing"), run.locked():
        pass
    with run.locked():
        pass
    assert list(tmp_path.iterdir()) == []
