import logging
import os
import runpy
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import synthetic
import torch
from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from lightning.pytorch import Callback

from fmnist.data import sources
from fmnist.data.datasets import published
from fmnist.data.idx import DataUnavailableError

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets `pytest &` and what it starts ignore Ctrl-C
torch.set_num_threads(1)  # many threads wait for each other over networks as small as the tests'
SCRIPTS = Path(__file__).parent.parent / "scripts"
SMALL = (
    "data=idx",
    *synthetic.FACTS,
    "data.val_size=100",
    "data.batch_size=50",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=5",
    "model.channels=[4,8]",
    "pictures=none",
    "report=false",
)
"""A training of a second on the made-up images, but for their folder and the number of epochs."""


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four made-up files, to be read only."""
    return synthetic.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undoes what a script does to the loggers of its process."""
    names = ("fmnist", "lightning.pytorch", "py.warnings", "")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate, [*logger.handlers]) for logger in loggers]
    formatwarning = warnings.formatwarning
    yield
    logging.captureWarnings(False)
    warnings.formatwarning = formatwarning
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.level, logger.propagate, logger.handlers = level, propagate, handlers


@dataclass
class Done:
    """How a script ended."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def run(self) -> Path:
        """The only run folder."""
        (config,) = self.folder.glob("outputs/*/*/config.yaml")
        return config.parent

    def assert_refused(self, *fragments: str) -> None:
        """It exited with the status of a user error and one line, in which the fragments stand."""
        assert self.status == 2
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        for fragment in fragments:
            assert fragment in line


RunScript = Callable[..., Done]


@pytest.fixture(autouse=True)
def compose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps Hydra from composing a config twice, the first time for `hydra.mode` alone, where no sweep is asked for."""
    original = Hydra.get_mode

    def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
        may_sweep = any(word in override for override in overrides for word in ("sweep", "hydra.", "experiment"))
        return original(hydra, config_name, overrides) if may_sweep else None

    monkeypatch.setattr(Hydra, "get_mode", get_mode)


@pytest.fixture
def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunScript:
    """Runs a real script with its command line, in this process as the imports take seconds, in an empty folder."""

    def run(script: str, *arguments: str) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
        capsys.readouterr()
        status = 0
        try:
            runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        out, err = capsys.readouterr()
        return Done(status, out, err, tmp_path)

    return run


@pytest.fixture
def train(run_script: RunScript, data_root: Path) -> RunScript:
    """Runs scripts/train.py on the made-up images with a small network; more overrides may follow."""
    small = (*SMALL, f"data.root={data_root}", "trainer.max_epochs=2")

    def run(*arguments: str) -> Done:
        flags = [argument for argument in arguments if argument.startswith("-")]
        given = [argument for argument in arguments if argument not in flags]
        keys = {argument.split("=")[0] for argument in given}
        if "model" in keys:  # another network, which has no channels
            keys.add("model.channels")
        return run_script("train", *flags, *(word for word in small if word.split("=")[0] not in keys), *given)

    return run


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first test that uses `finished_run` keeps it for the others."""
    return tmp_path_factory.mktemp("first_run")


@pytest.fixture
def finished_run(first_run: Path, tmp_path: Path, train: RunScript) -> Path:
    """The folder of a run of 2 epochs, tmp_path/run, to be changed."""
    if not any(first_run.iterdir()):
        shutil.copytree(train("test=false").run, first_run / "run")
        shutil.rmtree(tmp_path / "outputs")
    return shutil.copytree(first_run / "run", tmp_path / "run")


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class AtBatch(Callback):
    """Does something in one batch of the training, counted from 1."""

    def __init__(self, batch: int, what: Callable[[], None]) -> None:
        self.batch = batch
        self.what = what

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batch:
            self.what()


@pytest.fixture
def at_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], pytest.MonkeyPatch]:
    """Lets something happen in the next runs."""
    from fmnist.config import build

    original = build.build_callbacks

    def arrange(batch: int, what: Callable[[], None]) -> pytest.MonkeyPatch:
        monkeypatch.setattr(build, "build_callbacks", lambda cfg: [*original(cfg), AtBatch(batch, what)])
        return monkeypatch

    return arrange


@pytest.fixture(autouse=True)
def no_download(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests offline: no source but the folders of a machine has the data."""

    def unavailable(*_: object, **__: object) -> None:
        raise DataUnavailableError("tests are offline")

    if request.module.__name__ not in ("test_sources", "test_datasets"):
        monkeypatch.setattr(sources, "debian_package", unavailable)
        for module in (sources, published):
            monkeypatch.setattr(module, "torchvision_download", unavailable)
