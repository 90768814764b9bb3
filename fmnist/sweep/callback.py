"""Hydra's callback of this project: it prepares a sweep, and concludes it with a comparison.

The jobs themselves are run by Hydra's own sweeper and launchers; see `fmnist.sweep.job`.
"""

import itertools
import os
import platform
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fmnist.config.messages import explain, fail
from fmnist.config.overrides import key_of, quoted
from fmnist.config.processes import at_end
from fmnist.runs.run import Run, check_name, new_run
from fmnist.sweep.folders import UNNAMED, belongs, job_name, sweep_name
from fmnist.sweep.gpu_assignment import visible_gpus
from fmnist.sweep.job import ended_here
from fmnist.sweep.overrides import SweepOverrides, parse_sweep
from fmnist.sweep.summary import Sweep, jobs_text
from fmnist.sweep.workers import STOP_FILE, continue_in_own_session
from fmnist.training.rank_info import check_sweep

AUTO = "auto"
HYDRA_FOLDERS = {"run.dir": ".", "output_subdir": None, "job.chdir": None, "sweep.dir": AUTO, "sweep.subdir": AUTO}
"""Settings of Hydra that a user can't change, and their values in conf/command_line.yaml."""


class SweepCallback(Callback):
    """Chooses the folders of a sweep before its jobs start, and has it concluded when the command ends.

    Args:
        for_jobs: what the jobs read from Hydra's config: see conf/command_line.yaml.
    """

    def __init__(self, **for_jobs: Any) -> None:
        self.for_jobs = for_jobs

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with a one-line error where a folder of Hydra's is set."""
        try:
            check_folders(config.hydra, in_sweep=False)
        except ValueError as error:
            fail(str(error))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Prepare the sweep; exit with a one-line error where it is not valid."""
        try:
            prepare(config)
        except Exception as error:  # Hydra would make a warning of it
            fail(explain(error, config.hydra.job.config_name))


def prepare(config: DictConfig) -> None:
    """Check a sweep, and tell its jobs where they lie, how many they are, and how they run.

    Args:
        config: the sweep's, with Hydra's own, to which Hydra adds the overrides of each job. It is changed.

    Raises:
        ValueError: if the sweep is not valid.
    """
    hydra: Any = config.hydra
    command = hydra.job.config_name
    check(hydra)
    given = [*(f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()), *hydra.overrides.task]
    overrides = parse_sweep(given, GlobalHydra.instance().config_loader())
    sequential = runs_sequentially(hydra.launcher)
    folder, is_new = make_folder(config, overrides)
    outcomes = None
    print(f"{jobs_text(overrides.jobs)} in {folder}{'' if is_new else ': those that are finished are not run again'}")
    ended_here.clear()
    for_jobs: dict[str, Any] = {"jobs": overrides.jobs}
    if not sequential:
        outcomes = folder / f".outcomes_{platform.node()}_{os.getpid()}"
        outcomes.mkdir()
        for_jobs["outcomes"] = quoted(str(outcomes))
        if uses_joblib(hydra.launcher):
            continue_in_own_session(outcomes / STOP_FILE)
            for_jobs["parent"] = os.getpid()
    unnamed = (UNNAMED - overrides.swept) | (overrides.fixed.keys() if overrides.swept else set())
    for_each_job = [
        f"hydra.sweep.dir={quoted(str(folder))}",
        "hydra.sweep.subdir=${fmnist_job_folder:}",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(unnamed))}]",
        *(f"hydra.callbacks.sweep.{key}={value}" for key, value in for_jobs.items()),
    ]
    with read_write(config), open_dict(config):
        hydra.sweep.dir = str(folder)
        hydra.overrides.hydra.extend(for_each_job)
    at_end.push(Sweep(command, folder, is_new, overrides.jobs, outcomes).end)


def job_folder(*, _root_: DictConfig) -> str:
    """Return the folder of the job with this config, below that of the sweep; a resolver of OmegaConf.

    It is named by the overrides that `hydra.job.config.override_dirname.exclude_keys` leaves. Where a run with other
    settings has the name already, as after an edit in conf/, the name gets a number.
    """
    hydra: Any = _root_.hydra
    excluded = hydra.job.config.override_dirname.exclude_keys
    overrides = [text for text in hydra.overrides.task if key_of(text) not in excluded]
    own = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    config: Any = OmegaConf.to_container(own, resolve=True)
    name = job_name(overrides)
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(name for name in names if belongs(Run(Path(hydra.sweep.dir) / name), config, overrides))


OmegaConf.register_new_resolver("fmnist_job_folder", job_folder, replace=True)


def check(hydra: Any) -> None:
    """Refuse a sweep whose command, processes, launcher or folders don't go with sweeps.

    Raises:
        ValueError: naming the key.
    """
    check_sweep()
    if hydra.job.config_name == "tune":
        raise ValueError("-m and sweep=... don't go with tuning, which chooses the values itself: see search=...")
    if uses_joblib(hydra.launcher) and not hasattr(os, "fork"):
        raise ValueError("sweep=parallel: it needs Linux or macOS; without it the jobs run one after the other")
    check_folders(hydra, in_sweep=True)
    jobs_at_once = hydra.launcher.get("n_jobs", 1)
    if jobs_at_once == 0 or jobs_at_once < -1:
        raise ValueError(f"hydra.launcher.n_jobs={jobs_at_once}: must be at least 1, or -1 for one on each GPU or core")
    if jobs_at_once == -1:
        hydra.launcher.n_jobs = len(visible_gpus()) or -1


def check_folders(hydra: DictConfig, *, in_sweep: bool) -> None:
    """Refuse settings of Hydra's own folders, but for the folder of a sweep.

    Raises:
        ValueError: naming the key.
    """
    for name, value in HYDRA_FOLDERS.items():
        if (OmegaConf.select(hydra, name) or None) != value and not (in_sweep and name == "sweep.dir"):
            raise ValueError(f"hydra.{name}: must not be given: outputs=... and name=... say where a run goes")


def uses_joblib(launcher: Any) -> bool:
    """Return whether the jobs run in processes of this machine."""
    return str(launcher._target_).endswith(".JoblibLauncher")


def runs_sequentially(launcher: Any) -> bool:
    """Return whether the jobs run in this process, one after the other; joblib does so with one job at a time."""
    if not uses_joblib(launcher):
        return str(launcher._target_).endswith(".BasicLauncher")
    import joblib  # half a second, which --help doesn't need

    return int(joblib.effective_n_jobs(launcher.n_jobs)) == 1


def make_folder(config: DictConfig, overrides: SweepOverrides) -> tuple[Path, bool]:
    """Return the folder of the sweep, and whether it is new.

    That of a training sweep is found again by the same command. Other commands get a new one each time.

    Raises:
        ValueError: if it can't be made.
    """
    command, given = config.hydra.job.config_name, config.hydra.sweep.dir
    outputs = OmegaConf.select(config, "outputs", default="outputs")
    if given == AUTO and command != "train":
        return new_run(Path(outputs), command).folder, True
    if given == AUTO:
        check_name(config.name)
        key, folder = f"outputs={outputs}", Path(outputs) / config.name / sweep_name(overrides)
    else:
        key, folder = f"hydra.sweep.dir={given}", Path(given)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{key}: can't make a folder there: {error.strerror}") from error
    return folder.absolute(), is_new
