"""fmnist.train and docs/python.md: trainings in a process that has more to do."""

import doctest
import logging
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from conftest import SMALL
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import fmnist
from fmnist.runs.run import Run

DOCS = Path(__file__).parent.parent / "docs"


def state() -> dict[str, Any]:
    """Return what a training could change in its process."""
    loggers = [logging.getLogger(name) for name in ("fmnist", "lightning.pytorch", "py.warnings", "")]
    return {
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "log": [(logger.level, logger.propagate, [*logger.handlers]) for logger in loggers],
        "environment": dict(os.environ),
        "hydra": GlobalHydra.instance().hydra,
        "arguments": sys.argv,
        "torch": (torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype(), torch.get_num_threads()),
    }


@pytest.fixture
def words(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides of a short training, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return [*SMALL, f"data.root={data_root}", "trainer.max_epochs=1"]


def test_several_trainings_in_one_process_leave_nothing_behind(
    words: list[str], capsys: pytest.CaptureFixture[str], train: Any
) -> None:
    before = state()
    first, second = fmnist.train(words), fmnist.train([*words, "model.dropout=0.4", "trainer.deterministic=true"])
    assert state() == before
    assert "epoch 1/1" in capsys.readouterr().out
    assert (first.status, second.status) == ("finished", "finished")
    assert first.folder != second.folder
    assert second.load_config().model.dropout == 0.4
    assert first.load_record()["overrides"] == words
    done = train("trainer.max_epochs=1", "name=other")
    accuracy = Run(next(done.folder.glob("outputs/other/*"))).load_metrics()["test/accuracy"]
    assert first.load_metrics()["test/accuracy"] == accuracy
    capsys.readouterr()
    before = state()
    model = fmnist.load(first)
    assert capsys.readouterr() == ("", "")
    assert state() == before
    assert repr(first) == f"Run({str(first.folder)!r})"
    assert all(each.label in model.classes for each in model.predict(synthetic.make(5, seed=0, black=True)[0]))


def test_a_run_is_resumed_and_errors_are_one_line(words: list[str]) -> None:
    run = fmnist.train(words)
    longer = fmnist.train([f"resume={run.folder}", "trainer.max_epochs=2"])
    assert longer.folder == run.folder
    assert longer.epochs == 2
    before = state()
    for override, reason in (
        ("model.dropout=1.5", "model.dropout=1.5: must be less than 1"),
        ("optimizer=sdg", "optimizer=sdg: there is no such option; did you mean sgd"),
        ("epochs=3", "epochs"),
        ("data.root=nowhere", "data.root=nowhere"),
        (f"resume={run.folder}/nothing", "there is no such folder"),
    ):
        with pytest.raises(ValueError, match=reason.replace(".", r"\.")) as caught:
            fmnist.train([*words, override] if "resume" not in override else [override])
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="must be a list of strings"):
        fmnist.train("model.dropout=0.4")
    assert state() == before


def test_a_training_runs_in_a_thread(words: list[str]) -> None:
    """Where no signal handler can be set."""
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(fmnist.train(words)))
    thread.start()
    thread.join()
    assert [run.status for run in runs] == ["finished"]


def test_the_code_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for brightness, name in ((60, "dark"), (200, "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(brightness - 40, brightness + 40, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    result = doctest.testfile(str(DOCS / "python.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 20
    assert result.failed == 0
