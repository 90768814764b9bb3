"""Look for a better setting: trials that choose, train and are compared on the validation images."""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt
from omegaconf import DictConfig
from optuna.trial import TrialState

from fmnist import train
from fmnist.config import logs
from fmnist.config.instantiate import plain_config
from fmnist.config.processes import end_with
from fmnist.config.validation import check_arguments
from fmnist.training.metric_names import direction
from fmnist.tune import storage
from fmnist.tune.conclusion import conclude
from fmnist.tune.search import keys_of, present, read_space
from fmnist.tune.study import open_tuning
from fmnist.tune.trials import OWN, Configs, check_trainings
from fmnist.tune.workers import WORKER, build_parts, introduce, start_workers, work

log = logging.getLogger(__name__)

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # of a folder, of a file, and of an option on the command line


def settings(
    study: str | None,
    trials: Annotated[int, Ge(1)],
    max_seconds: Annotated[float, Gt(0)] | None,
    n_jobs: Annotated[int, Ge(1)],
    storage: str | None,
    retrain: Annotated[int, Ge(0)],
    finalists: Annotated[int, Ge(1)],
) -> None:
    """The keys of conf/tune.yaml that neither a training nor a group has, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Goes on with a study until it has its trials, and shows what came out.

    Raises:
        ValueError: if the config asks for something that can't be, before anything is written.
        KeyboardInterrupt: if the person pressed Ctrl-C, after the result so far is shown.
        SystemExit: with status 1 if trials have failed.
    """
    logs.to_terminal()
    storage.quiet()
    name = str(cfg.study or hydra.runtime.choices.search)
    check(cfg, name)
    configs = Configs(list(hydra.overrides.task), name)
    space = read_space(plain_config(cfg.search), configs.plain, configs.options)
    configs.check_free(space)
    if direction(cfg.monitor) == "min" and "loss" in keys_of(space):
        raise ValueError(f"monitor={cfg.monitor}: search.loss chooses among losses, which can't be compared by it")
    sampler, pruner = build_parts(cfg)
    if WORKER not in os.environ:
        check_trainings(space, configs)
    tuning = open_tuning(
        (Path(cfg.outputs) / "tune" / name).absolute(),
        cfg.storage,
        direction(cfg.monitor),
        {**configs.plain(), "search": plain_config(cfg.search)},
        present(space, configs.plain(), configs.choices()),
        sampler=sampler,
        pruner=pruner,
    )
    with storage.explained(storage.shown(cfg.storage) if cfg.storage else str(tuning.folder)):
        if WORKER in os.environ:
            end_with(int(os.environ[WORKER]))
            work(cfg, tuning, space, configs)
            return
        introduce(cfg, tuning, space)
        status, interrupted = 0, False
        try:
            if cfg.n_jobs > 1:
                status = start_workers(cfg.n_jobs)
            else:
                work(cfg, tuning, space, configs)
        except KeyboardInterrupt:
            interrupted = True
            log.info("interrupted; the same command goes on")
        conclude(tuning, space, configs, cfg, retrained=0 if interrupted else cfg.retrain)
        failed = sum(trial.state == TrialState.FAIL for trial in tuning.counted)
    if interrupted:
        raise KeyboardInterrupt
    if failed:
        log.warning("%d of %d trials failed", failed, len(tuning.counted))
    if status or failed:
        sys.exit(status or 1)


def check(cfg: DictConfig, name: str) -> None:
    """Refuses what makes no sense here, and values that can't be.

    Raises:
        ValueError: naming the key.
    """
    if cfg.resume is not None:
        raise ValueError(f"resume={cfg.resume}: a study goes on by its own command again")
    if cfg.name is not None:
        raise ValueError(f"name={cfg.name}: the runs are called by their study: study={cfg.name}")
    plain = {str(key): value for key, value in cfg.items() if not isinstance(value, DictConfig)}
    check_arguments("", settings, {key: value for key, value in plain.items() if key in OWN})
    check_arguments("", train.settings, {key: value for key, value in plain.items() if key not in OWN} | {"name": name})
    if not re.fullmatch(NAME, name):
        raise ValueError(f"study={name}: it should be of letters, digits, '_', '-' and '.' alone, as a file's name is")
    if name in Configs.known("experiment"):
        raise ValueError(f"study={name}: there is an experiment of that name; take study=<another name>")
    if not cfg.data.val_size:
        raise ValueError(f"data.val_size={cfg.data.val_size}: trials are compared on validation images")
    if cfg.test:
        log.info("test=true: no trial looks at the test images; train the best setting to test it")
