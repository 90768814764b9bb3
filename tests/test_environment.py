"""What surrounds a command: variables that hosts set, terminals that aren't UTF-8, systems without Linux's calls."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SCRIPTS, SMALL, Done, RunScript

from fmnist.config import processes
from fmnist.config.logs import show_any_text
from fmnist.sweep.gpu_assignment import VISIBLE, visible_gpus

HOSTS = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Jupyter's, where that package isn't
    "CUDA_VISIBLE_DEVICES": "-1",
    "COLUMNS": "0",
    "LC_ALL": "C",
    "PYTHONIOENCODING": "latin-1",
    "PYTHONUTF8": "0",
}
"""Variables that notebooks, clusters and terminals set."""
MISSING = {"HOME", "TERM"}

NOT_LINUX = """
import os, signal, sys
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
_SignalConnector.register_signal_handlers = lambda self: None  # Lightning goes by the system's name
for module, names in (
    (signal, ("SIGUSR1", "SIGUSR2", "SIGHUP")),
    (os, ("setsid", "fork", "sched_getaffinity", "sysconf", "getuid", "geteuid")),
):
    for name in names:
        delattr(module, name)
for name in ("resource", "pwd", "grp"):
    sys.modules[name] = None
"""
"""Hides what Windows hasn't got, but for fcntl: filelock has another way to lock files there."""


def run_in_process(folder: Path, script: str, *arguments: str, before: str = "", **options: dict[str, str]) -> Done:
    """Runs a script in a process of its own, after a piece of code."""
    code = f"{before}\nimport runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(SCRIPTS / f"{script}.py"), *arguments]
    environment = {"PYTHONPATH": str(SCRIPTS.parent), **options.get("env", dict(os.environ))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return Done(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1"), folder)


@pytest.mark.slow
def test_variables_that_hosts_set_change_nothing(tmp_path: Path, data_root: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in MISSING} | HOSTS
    arguments = [*SMALL[:-1], f"data.root={data_root}", "trainer.max_epochs=1"]
    done = run_in_process(tmp_path, "train", *arguments, env=env)
    assert (done.status, done.err) == (0, "")
    assert re.search(r"^ -{20,}$", done.out, re.MULTILINE), "a table is drawn with what the stream has"
    assert (done.run / "report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_system_without_the_calls_of_linux_trains_resumes_and_evaluates(tmp_path: Path, data_root: Path) -> None:
    common = [f"data.root={data_root}", "report=false"]
    code = NOT_LINUX + "import fmnist.tune.main, fmnist.sweep.callback, fmnist.predict.main, fmnist.compare.main"
    trained = run_in_process(tmp_path, "train", *SMALL, *common, "trainer.max_epochs=1", before=code)
    assert (trained.status, trained.err) == (0, "")
    resumed = run_in_process(tmp_path, "train", f"resume={trained.run}", "trainer.max_epochs=2", before=NOT_LINUX)
    assert (resumed.status, resumed.err) == (0, "")
    assert "epoch 2/2" in resumed.out


@pytest.mark.parametrize(
    ("script", "arguments", "fragments"),
    [
        ("train", ["-m", "sweep=parallel", "seed=0,1"], ["sweep=parallel", "Linux or macOS"]),
        ("tune", ["n_jobs=2"], ["n_jobs=2", "Linux or macOS"]),
    ],
)
def test_what_another_system_lacks_is_refused(
    script: str, arguments: list[str], fragments: list[str], run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fork")
    monkeypatch.delattr(os, "setsid")
    run_script(script, *arguments).assert_refused(*fragments)


def test_signals_of_the_system_are_handled_as_ctrl_c() -> None:
    assert {signal.name for signal in processes.SYSTEM_SIGNALS} == {"SIGTERM", "SIGUSR1", "SIGHUP"}


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "─│±… é"), ("latin-1", "-|±... é"), ("cp1252", "-|±… é"), ("ascii", r"-|+-... \xe9")],
)
def test_characters_that_a_stream_lacks_are_replaced_by_similar_ones(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w", encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        show_any_text()
        print("─│±… é", end="", flush=True)
    assert (tmp_path / "out").read_text(encoding=encoding) == shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("0, 2", ["0", "2"]),
        ("1,-1,0", ["1"]),
        ("GPU-8932,MIG-3", ["GPU-8932", "MIG-3"]),
    ],
)
def test_visible_gpus_are_those_of_cuda(value: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, value)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--hydra-help", "optimizer=sgd"], "== Flags =="),
        (["--hydra-help"], "== Flags =="),
        (["--help", "optimizer=sgd", "-m"], "optimizer=sgd"),
        (["--version", "optimizer=sgd"], "Hydra 1.3"),
        (["--info", "searchpath", "optimizer=sgd"], "Config search path"),
        (["--cfg", "job", "optimizer=sgd", "--resolve"], "lr: 0"),
        (["optimizer=sgd", "--cfg", "job", "--package", "optimizer"], "momentum"),
    ],
)
def test_flags_of_hydra_go_with_overrides(arguments: list[str], shown: str, run_script: RunScript) -> None:
    done = run_script("train", *arguments)
    assert (done.status, done.err) == (0, "")
    assert shown in done.out


@pytest.mark.parametrize("flag", [["--cfg", "job"], ["--info"]])
def test_one_config_is_shown_of_one_training(flag: list[str], run_script: RunScript) -> None:
    run_script("train", "-m", "seed=0,1", *flag).assert_refused("leave out -m")


@pytest.mark.parametrize(
    "path_to",
    [
        lambda run: f"run={run}",
        lambda run: str(run),
        lambda run: f"run={run}/checkpoints",
        lambda run: f"{run}/checkpoints/last.ckpt",
        lambda run: f"run={run}/checkpoints/best.ckpt",
        lambda run: f"run={run.parent}",
        lambda run: f"{run}/metrics.json",
        lambda run: f"run=~/{run.name}",
        lambda run: f"run=[~/{run.name}/config.yaml]",
        lambda run: f"checkpoint=~/{run.name}/epoch=6-val=0.93 (1).ckpt",
        lambda run: f"checkpoint={run}/epoch=6-val=0.93 (1).ckpt",
        lambda run: f"{run}/epoch=6-val=0.93 (1).ckpt",
    ],
)
def test_a_run_is_named_by_any_of_its_paths(
    path_to: Callable[[Path], str], finished_run: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(finished_run.parent))
    content = (finished_run / "checkpoints" / "best.ckpt").read_bytes()
    (finished_run / "epoch=6-val=0.93 (1).ckpt").write_bytes(content)
    done = run_script("evaluate", path_to(finished_run), "split=val")
    assert (done.status, done.err) == (0, "")
    assert "val: loss" in done.out
