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
from omegaconf import DictConfig
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

    study: str
    trials: AtLeast1
    max_seconds: Annotated[float, Gt(0)] | None
    n_jobs: AtLeast1
    storage: str | None
    retrain: AtLeast0
    finalists: AtLeast1


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Run a study, or resume it, until it has its trials, and write its results.

    Args:
        cfg: the config, as conf/tune.yaml composes it.
        hydra: Hydra's own config.

    Raises:
        ValueError: if the config isn't valid. Nothing is written then.
        KeyboardInterrupt: if the user pressed Ctrl-C. The results so far are written.
        SystemExit: with status 1 if trials failed.
    """
    logs.to_terminal()
    quiet()
    given = check_settings(cfg, str(cfg.study or hydra.runtime.choices.search))
    configs = Configs(list(hydra.overrides.task), given.study)
    search = plain_config(cfg.search)
    space = read_space(search, configs.plain, searchable_options)
    configs.check_free(space)
    if direction(given.monitor) == "min" and any(parameter.key == "loss" for parameter in space):
        raise ValueError(f"monitor={given.monitor}: can't compare the losses that search.loss chooses among")
    build_part("sampler", cfg.sampler, BaseSampler, seed=0)  # invalid arguments show before anything is written
    pruner = build_part("pruner", cfg.pruner, BasePruner)
    if WORKER not in os.environ:
        check_trainings(space, configs)
    tuning = open_study(
        (Path(given.outputs) / "tune" / given.study).absolute(),
        given.storage,
        configs.plain() | {"search": search},
        base_params(space, configs.plain(), configs.choices()),
        lambda seed: build_part("sampler", cfg.sampler, BaseSampler, seed=seed),
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


def run_study(
    given: Settings, tuning: Tuning, space: Space, configs: Configs, facts: dict[str, str], work: Callable[[], None]
) -> None:
    """Run the trials that are left, in this process or in several, and write the results."""
    log_summary(given, tuning, space, facts)
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


def check_settings(cfg: DictConfig, study: str) -> Settings:
    """Return the keys that belong to no group, checked.

    Raises:
        ValueError: naming the key whose value isn't allowed.
    """
    if cfg.resume is not None:
        raise ValueError(f"resume={cfg.resume}: a study resumes by its own command, given again")
    if cfg.name is not None:
        raise ValueError(f"name={cfg.name}: the runs have the name of their study: study={cfg.name}")
    named = cfg.copy()
    named.name = named.study = study
    given = read_settings(Settings, named)
    if not re.fullmatch(NAME, study):
        raise ValueError(f"study={study}: must be letters, digits, '_', '-' and '.' alone, beginning with none of '-.'")
    if study in known_options("experiment"):
        raise ValueError(f"study={study}: there is an experiment of that name; take study=<another name>")
    if not cfg.data.val_size:
        raise ValueError(f"data.val_size={cfg.data.val_size}: trials are compared on validation images")
    if given.test:
        log.info("test=true: no trial looks at the test images; train the best setting to test it")
    return given


def build_part(key: str, node: DictConfig, kind: type, **extra: Any) -> Any:
    """Return the sampler or the pruner of the config.

    Raises:
        ValueError: naming the argument that is out of its bounds.
    """
    for name, value in (plain_config(node) if isinstance(node, DictConfig) else {}).items():
        if name in BOUNDS:
            check_value(f"{key}.{name}", BOUNDS[name], value)
    return build(key, node, kind, **extra)


def log_summary(given: Settings, tuning: Tuning, space: Space, kinds: dict[str, str]) -> None:
    """Log what is searched, and where the study is."""
    done = sum(trial.state.is_finished() for trial in tuning.trials)
    log.info("study %s in %s", given.study, tuning.folder)
    for parameter in space:
        log.info("  %s", parameter)
    log.info("%s; best is the %simum of %s", ", ".join(kinds.values()), direction(given.monitor), given.monitor)
    log.info("%d trial%s, of which %d are done", given.trials, "s" if given.trials > 1 else "", done)
