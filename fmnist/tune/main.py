"""Search for a better setting: trials choose values, train, and are compared on the validation images."""

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from omegaconf import DictConfig, OmegaConf
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from fmnist.config import logs
from fmnist.config.instantiate import build, plain_config
from fmnist.config.keys import TrainKeys
from fmnist.config.processes import end_with
from fmnist.config.settings import read_settings
from fmnist.config.validation import check_value
from fmnist.training.metric_names import direction
from fmnist.training.rank_info import leave_others
from fmnist.tune.results import write_results
from fmnist.tune.space import Space, base_params, read_space
from fmnist.tune.storage import database_errors, quiet
from fmnist.tune.study import Tuning, open_study
from fmnist.tune.trials import Configs, check_trainings, known_options, run_trial, searchable_options
from fmnist.tune.workers import WORKER, run_trials, start_workers

log = logging.getLogger(__name__)

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # allowed in the name of a folder, of a file, and of an option
AtLeast0 = Annotated[int, Ge(0)]
AtLeast1 = Annotated[int, Ge(1)]
BOUNDS: dict[str, Any] = {
    "n_startup_trials": AtLeast0,
    "n_ei_candidates": AtLeast1,
    "n_warmup_steps": AtLeast0,
    "min_resource": AtLeast1,
    "max_resource": AtLeast1 | Literal["auto"],
    "reduction_factor": Annotated[int, Ge(2)],
}
"""Arguments of samplers and pruners that Optuna checks too late or not at all."""


@dataclass(kw_only=True)
class Settings(TrainKeys):
    """The keys of conf/tune.yaml, and what they may be."""

    name: str | None  # type: ignore[assignment]
    study: str | None
    trials: AtLeast1
    max_seconds: Annotated[float, Gt(0)] | None
    n_jobs: AtLeast1
    storage: str | None
    retrain: AtLeast0
    finalists: AtLeast1


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Run a study, or resume it, until it has its trials, and write its results.

    Raises:
        ValueError: if the config isn't valid. Nothing is written then.
        KeyboardInterrupt: if the user pressed Ctrl-C. The results so far are written.
        SystemExit: with status 1 if trials failed.
    """
    leave_others()  # a trial has one process
    logs.to_terminal()
    quiet()
    given = read_settings(Settings, cfg)
    given.study = given.study or str(hydra.runtime.choices.search)
    check_settings(given, cfg.data.val_size)
    configs = Configs(list(hydra.overrides.task), given.study)
    search = plain_config(cfg.search)
    space = read_space(search, configs.plain, searchable_options)
    configs.check_free(space)
    if direction(given.monitor) == "min" and any(parameter.key == "loss" for parameter in space):
        raise ValueError(f"monitor={given.monitor}: can't compare the losses that search.loss chooses among")
    for key in (f"{part}.{name}" for part in ("sampler", "pruner") for name in BOUNDS if name in (cfg[part] or {})):
        check_value(key, BOUNDS[key.partition(".")[2]], OmegaConf.select(cfg, key))
    build("sampler", cfg.sampler, BaseSampler, seed=0)  # invalid arguments show before anything is written
    pruner = build("pruner", cfg.pruner, BasePruner)
    if WORKER not in os.environ:
        check_trainings(space, configs)
    tuning = open_study(
        (Path(given.outputs) / "tune" / given.study).absolute(),
        given.storage,
        configs.plain() | {"search": search},
        base_params(space, configs.plain(), configs.choices()),
        lambda seed: build("sampler", cfg.sampler, BaseSampler, seed=seed),
        pruner,
    )
    objective = functools.partial(run_trial, tuning=tuning, space=space, configs=configs)
    work = functools.partial(run_trials, tuning, objective, given.trials, given.max_seconds)
    with database_errors(tuning.database):
        if WORKER in os.environ:
            end_with(int(os.environ[WORKER]))
            work()
        else:
            facts = {key: cfg[key]._target_.rpartition(".")[2] for key in ("sampler", "pruner")}
            run_study(given, tuning, space, configs, facts, work)


def check_settings(given: Settings, val_size: int) -> None:
    """Raise a ValueError that names the key whose value isn't allowed."""
    if given.resume is not None:
        raise ValueError(f"resume={given.resume}: a study resumes by its own command, given again")
    if given.name is not None:
        raise ValueError(f"name={given.name}: the runs have the name of their study: study={given.name}")
    if not re.fullmatch(NAME, given.study or ""):
        raise ValueError(
            f"study={given.study}: must be letters, digits, '_', '-' and '.' alone, beginning with none of '-.'"
        )
    if given.study in known_options("experiment"):
        raise ValueError(f"study={given.study}: there is an experiment of that name; take study=<another name>")
    if given.n_jobs > 1 and not hasattr(os, "setsid"):  # which Windows hasn't got
        raise ValueError(f"n_jobs={given.n_jobs}: more than one needs Linux or macOS")
    if not val_size:
        raise ValueError(f"data.val_size={val_size}: trials are compared on validation images")
    if given.test:
        log.info("test=true: no trial looks at the test images; train the best setting to test it")


def run_study(
    given: Settings, tuning: Tuning, space: Space, configs: Configs, facts: dict[str, str], work: Callable[[], None]
) -> None:
    """Run the trials that are left, in this process or in several, and write the results."""
    done = sum(trial.state.is_finished() for trial in tuning.trials)
    log.info("study %s in %s", given.study, tuning.folder)
    for parameter in space:
        log.info("  %s", parameter)
    log.info("%s; best is the %simum of %s", ", ".join(facts.values()), direction(given.monitor), given.monitor)
    log.info("%d trial%s, of which %d are done", given.trials, "s" if given.trials > 1 else "", done)
    status, interrupted = 0, None
    try:
        if given.n_jobs > 1:
            status = start_workers(given.n_jobs)
        else:
            work()
    except KeyboardInterrupt as error:
        interrupted = error
        log.info("interrupted; the same command resumes")
    seeds = range(given.seed + 1, given.seed + 1 + (0 if interrupted else given.retrain))
    write_results(tuning, space, configs, facts=facts, seeds=seeds, finalists=given.finalists)
    if interrupted:
        raise interrupted
    failed = sum(trial.state == TrialState.FAIL for trial in tuning.trials)
    if failed:
        log.warning("%d of %d trials failed", failed, len(tuning.trials))
    if status or failed:
        sys.exit(status or 1)
