"""A study on disk: begun once, gone on with by whoever gives the same command, whatever killed its workers."""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fmnist.runs.run import Run
from fmnist.tune import storage as storages
from fmnist.tune.search import flat

log = logging.getLogger(__name__)

DATABASE = "study.db"
SETTINGS = "settings"
"""Of the study: what has to be the same whenever it goes on."""
REPEATS, DEATHS = "repeats", "deaths"
"""Of a trial: the number of the one that was cut off and which it does again, and how many deaths led to it."""
SECONDS, EPOCHS, ERROR = "seconds", "epochs", "error"
"""Of a trial: of its training so far, and why it failed."""
MOST_DEATHS = 3  # of a trial's process, after which it isn't tried again: it may be what killed it
OF_NO_CONSEQUENCE = (
    *("name", "outputs", "report", "test", "compile", "cuda_graph", "resume", "pictures", "data.root", "data.verify"),
    *("trainer.enable_progress_bar", "trainer.profiler", "trainer.log_every_n_steps"),
)
"""Keys that change nothing of what a trial's value means."""


@dataclass(frozen=True)
class Tuning:
    """A study and its folder."""

    folder: Path
    study: Study
    shared: bool
    """Whether its workers may be on many machines, so that a lock on a file tells nothing of them."""
    turn: FileLock
    """Held while a worker of this machine takes its next trial."""

    def run(self, number: int) -> Run:
        """The run of a trial."""
        return Run(self.folder / f"{number:04d}")

    @property
    def repeated(self) -> set[int]:
        """The numbers of trials that were cut off and put back: they don't count."""
        return {trial.user_attrs[REPEATS] for trial in self.trials if REPEATS in trial.user_attrs}

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def counted(self) -> list[FrozenTrial]:
        """Trials that have begun, without those that were put back."""
        repeated = self.repeated
        return [t for t in self.trials if t.state != TrialState.WAITING and t.number not in repeated]

    @property
    def seconds(self) -> float:
        """Of training, over all trials, those included that were cut off."""
        return sum(float(trial.user_attrs.get(SECONDS, 0)) for trial in self.trials)

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that were trained to their end, the best first, among equals the one that came first."""
        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        sign = -1 if self.study.direction == StudyDirection.MAXIMIZE else 1
        return sorted(done, key=lambda trial: sign * (trial.value or 0.0))

    @property
    def best(self) -> FrozenTrial | None:
        """The best of them, if there is one."""
        return next(iter(self.finished), None)

    def bury(self) -> list[int]:
        """Puts back the trials whose process has died, and returns their numbers. Needs the turn."""
        if self.shared:
            before = self.repeated
            optuna.storages.fail_stale_trials(self.study)
            return sorted(self.repeated - before)
        dead = [t for t in self.trials if t.state == TrialState.RUNNING and not _alive(self.run(t.number))]
        for trial in dead:
            run = self.run(trial.number)
            if run.record_file.is_file():
                run.update_record(status="interrupted")
            put_back(self.study, trial, died=True)
            self.study.tell(trial.number, state=TrialState.FAIL)
        return [trial.number for trial in dead]

    def tidy(self) -> None:
        """Leaves of all checkpoints the best trial's best alone."""
        best = self.best
        for trial in self.trials:
            if trial.state.is_finished():
                run = self.run(trial.number)
                run.last_checkpoint.unlink(missing_ok=True)
                run.previous_checkpoint.unlink(missing_ok=True)
                if best is None or trial.number != best.number:
                    run.best_checkpoint.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    run.best_checkpoint.parent.rmdir()


def open_tuning(
    folder: Path,
    url: str | None,
    direction: str,
    settings: Mapping[str, Any],
    first: Mapping[str, Any] | None,
    **parts: Any,
) -> Tuning:
    """The study of that name, which is begun where there is none.

    Args:
        folder: of the study, which has its name.
        url: of a database; None keeps the file in the folder.
        direction: "min" or "max".
        settings: what its trials have in common: another study can't go on with them.
        first: the values of the first trial, by the names of the parameters.
        parts: its sampler and pruner.

    Raises:
        ValueError: if there is one with other settings, or its database can't be used.
    """
    name, known = url and storages.shown(url), folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"outputs: can't make the folder {folder}: {error.strerror}") from error
    turn = FileLock(folder / ".turn")
    try:
        with storages.explained(name or str(folder / DATABASE)), turn:
            storage = storages.open_url(url, stale) if url else storages.open_file(folder / DATABASE)
            study = _begin(folder, storage, StudyDirection[f"{direction}imize".upper()], settings, first, parts)
    except BaseException:
        if not known:  # nothing but the lock
            (folder / ".turn").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()
                folder.parent.parent.rmdir()
        raise
    return Tuning(folder, study, url is not None, turn)


def _begin(
    folder: Path,
    storage: BaseStorage,
    direction: StudyDirection,
    settings: Mapping[str, Any],
    first: Mapping[str, Any] | None,
    parts: Mapping[str, Any],
) -> Study:
    """Makes the study, or looks whether it is the one that is meant."""
    name = folder.name
    if name not in optuna.get_all_study_names(storage) and any(folder.glob("[0-9]" * 4)):
        raise ValueError(
            f"{folder} holds the trials of a study that the storage doesn't know: take study=<another name>"
        )
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction=direction, **parts)
    wanted = {key: value for key, value in flat(settings).items() if not key.startswith(OF_NO_CONSEQUENCE)}
    wanted = json.loads(json.dumps(wanted))
    if SETTINGS not in study.user_attrs:
        study.set_user_attr(SETTINGS, wanted)
        if first is not None:
            study.enqueue_trial(dict(first))
    begun = study.user_attrs[SETTINGS]
    for key in sorted(wanted.keys() | begun.keys()):
        if wanted.get(key) != begun.get(key):
            was, now = (json.dumps(each[key]) if key in each else "nothing" for each in (begun, wanted))
            raise ValueError(f"study={name} was begun with {key}={was}, not {now}: take study=<another name>")
    return study


def put_back(study: Study, trial: FrozenTrial, *, died: bool) -> None:
    """Lets a trial that was cut off be done again. Called before it is marked as failed, lest a kill lose it."""
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    repeated = any(other.user_attrs.get(REPEATS) == trial.number for other in study.get_trials(deepcopy=False))
    if not repeated and deaths < MOST_DEATHS:
        chosen = trial.system_attrs.get("fixed_params", {}) | trial.params
        study.enqueue_trial(chosen, {REPEATS: trial.number, DEATHS: deaths})


def stale(study: Study, trial: FrozenTrial) -> None:
    """Puts back a trial whose worker, on whatever machine, has fallen silent."""
    put_back(study, trial, died=True)


def same_error(trials: Sequence[FrozenTrial], number: int) -> str | None:
    """The error with which that many trials have failed, if there were no others."""
    errors = [trial.user_attrs.get(ERROR) for trial in trials]
    failed = len(trials) >= number and all(trial.state == TrialState.FAIL for trial in trials)
    return errors[0] if failed and len(set(errors)) == 1 else None


def _alive(run: Run) -> bool:
    """Whether a process is writing the run."""
    if not run.folder.is_dir():
        return False
    try:
        with run.locked():
            return False
    except ValueError:
        return True
