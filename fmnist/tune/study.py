"""A study on disk: its database, its trials, and the trials that a killed process has left behind."""

import functools
import json
import logging
import platform
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fmnist.config.keys import affects_result
from fmnist.runs.run import Run
from fmnist.training.metric_names import direction
from fmnist.tune.space import flat
from fmnist.tune.storage import database_errors, hide_password, open_storage

log = logging.getLogger(__name__)

DATABASE = "study.db"
CONFIG = "config"
"""The study's attribute with the values that must stay the same when it resumes."""
SECONDS, EPOCHS, ERROR = "seconds", "epochs", "error"
"""Attributes of a trial: its training so far, and why it failed."""
MAX_RETRIES = 3  # of a trial whose process died: the trial itself may be what kills it


@dataclass(frozen=True)
class Tuning:
    """A study and its folder."""

    folder: Path
    study: Study
    metric: str
    seed: int
    make_sampler: Callable[[int], BaseSampler]
    is_shared: bool
    """Whether other machines may work on it, too."""
    database: str
    """The database as it is shown, without a password."""
    lock: FileLock
    """Held while a process of this machine begins a trial, so that they begin no more than were asked for."""

    def run(self, number: int) -> Run:
        """Return the run of a trial."""
        return Run(self.folder / f"{number:04d}")

    @property
    def retried(self) -> set[int]:
        """The numbers of the interrupted trials that another trial repeats."""
        history = RetryHeartbeatStaleTrialCallback.retry_history
        return {number for trial in self.study.get_trials(deepcopy=False) for number in history(trial)}

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that have begun, without the retried ones."""
        retried = self.retried
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in retried]

    @property
    def seconds(self) -> float:
        """Seconds of training in all trials together, those of interrupted trials included."""
        return sum(float(trial.user_attrs.get(SECONDS, 0)) for trial in self.study.get_trials(deepcopy=False))

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that were trained to their end, the best first; of equal ones the first comes first."""
        sign = -1 if direction(self.metric) == "max" else 1
        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return sorted(done, key=lambda trial: sign * (trial.value or 0.0))

    def retry(self, trial_number: int) -> None:
        """Queue a trial again that the user has interrupted."""
        RetryHeartbeatStaleTrialCallback()(self.study, self.study.get_trials()[trial_number])

    def seed_sampler(self) -> None:
        """Make the sampler of the next trial, seeded by the study's seed and the trial's number.

        So a study that resumes draws the same as one that was never interrupted, and no two trials draw the same. On a
        database that several machines share they could begin a trial of the same number, so the machine's name counts.
        """
        number, machine = len(self.study.get_trials(deepcopy=False)), platform.node() if self.is_shared else ""
        self.study.sampler = self.make_sampler(random.Random(f"{self.seed} {number} {machine}").getrandbits(32))

    def prune_checkpoints(self) -> None:
        """Remove all checkpoints of the trials that have ended, except the best one of the best trial."""
        best = next(iter(self.finished), None)
        for trial in self.study.get_trials(deepcopy=False):
            run = self.run(trial.number)
            if best and trial.number == best.number:
                run.last_checkpoint.unlink(missing_ok=True)
                run.previous_checkpoint.unlink(missing_ok=True)
            elif trial.state.is_finished():
                shutil.rmtree(run.best_checkpoint.parent, ignore_errors=True)


def open_study(
    folder: Path,
    url: str | None,
    config: Mapping[str, Any],
    first: Mapping[str, Any] | None,
    make_sampler: Callable[[int], BaseSampler],
    pruner: BasePruner,
) -> Tuning:
    """Return the study in a folder of its name, which is created if there is none.

    Args:
        url: of a database; None keeps a file in the folder.
        config: what the trials have in common, nested: only a study with the same can resume.
        first: the values of the first trial, by the parameters' names; None draws them, too.

    Raises:
        ValueError: if the study has another config, or its database can't be used.
    """
    database = hide_password(url) if url else str(folder / DATABASE)
    lock, metric = FileLock(folder / ".lock"), config["monitor"]
    with database_errors(database, RuntimeError):  # RuntimeError: tables of another version of Optuna
        stale = functools.partial(retry_stale, folder)
        storage = open_storage(url, stale) if url else None  # first, as an unreachable one leaves no folder
        folder.mkdir(parents=True, exist_ok=True)
        with lock:  # also while the file is made, which two processes can't do at once
            storage = storage or open_storage(f"sqlite:///{folder / DATABASE}", stale)
            if folder.name not in optuna.get_all_study_names(storage) and any(folder.glob("[0-9]" * 4)):
                raise ValueError(f"{folder} has trials that its database lacks: take study=<another name>")
            study = optuna.create_study(
                storage=storage,
                pruner=pruner,
                study_name=folder.name,
                direction=StudyDirection[f"{direction(metric)}imize".upper()],
                load_if_exists=True,
            )
            values = {key: value for key, value in flat(config).items() if key == "seed" or affects_result(key)}
            check_config(study, json.loads(json.dumps(values)))
            if first is not None and not study.get_trials(deepcopy=False):
                study.enqueue_trial(dict(first))
    return Tuning(folder, study, metric, config["seed"], make_sampler, url is not None, database, lock)


def check_config(study: Study, config: Mapping[str, Any]) -> None:
    """Store what a new study's trials have in common, or check that it is still the same.

    Raises:
        ValueError: naming the key that differs.
    """
    name = f"study={study.study_name}"
    if not study.get_trials(deepcopy=False):
        study.set_user_attr(CONFIG, dict(config))
    if CONFIG not in study.user_attrs:
        raise ValueError(f"{name} was begun by another version of this program: take study=<another name>")
    begun = study.user_attrs[CONFIG]
    for key in sorted(config.keys() | begun.keys()):
        if config.get(key) != begun.get(key):
            was, now = (json.dumps(each[key]) if key in each else "nothing" for each in (begun, config))
            raise ValueError(f"{name} was begun with {key}={was}, not {now}: take study=<another name>")


def retry_stale(folder: Path, study: Study, trial: FrozenTrial) -> None:
    """Queue a trial again whose process has died."""
    run = Run(folder / f"{trial.number:04d}")
    if run.record_file.is_file():
        run.update_record(status="interrupted")
    log.info("trial %d: its process died; a trial is retried up to %d times", trial.number, MAX_RETRIES)
    RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, trial)


def format_value(value: float | None, metric: str) -> str:
    """Return a loss with four digits, and any other metric in per cent."""
    if value is None:
        return "-"
    return f"{value:.4f}" if direction(metric) == "min" else f"{value:.2%}"


def format_param(value: Any) -> str:
    """Return a parameter's value, a float with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
