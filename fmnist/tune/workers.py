"""The trials of a study, one after the other in this process, or in several processes at once."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence

import joblib
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from fmnist.config.processes import interrupted_by_hangup
from fmnist.plotting.terminal import WIDTH
from fmnist.tune import storage
from fmnist.tune.study import EPOCHS, ERROR, SECONDS, Tuning, format_param, format_value
from fmnist.tune.trials import TrialAbandoned

log = logging.getLogger(__name__)

WORKER = "FMNIST_TUNE_WORKER"
"""Environment variable of a worker process: the id of the process that started it and writes the results."""
SAME_ERRORS = 3  # first trials that fail alike: so would the others
MAX_FAILURES = 3  # of the database, one after the other
POLL = 1.0  # seconds between two looks at the trials of other processes
KILLED = 1  # exit status if a worker was killed


def run_trials(tuning: Tuning, objective: Callable[[Trial], float], trials: int, max_seconds: float | None) -> None:
    """Run one trial after the other until the study has enough trials or seconds of training.

    Then wait for the trials of other processes, up to the time after which a killed one is found and retried.

    Args:
        objective: runs a trial, and releases the study's lock once the trial has its folder.
        trials: of the whole study, which other processes may work on, too.
        max_seconds: of training, in all trials together, after which no trial begins.

    Raises:
        ValueError: if the first trials all failed with the same error.
        KeyboardInterrupt: if the user pressed Ctrl-C.
    """
    before = {trial.number for trial in tuning.trials}
    waited, failures = 0.0, 0
    while waited <= storage.GRACE + storage.HEARTBEAT:
        try:
            with tuning.lock:
                optuna.storages.fail_stale_trials(tuning.study)
                check_errors([trial for trial in tuning.trials if trial.number not in before])
                enough = len(tuning.trials) >= trials or (max_seconds is not None and tuning.seconds >= max_seconds)
                if not enough:
                    waited = 0.0
                    tuning.seed_sampler()
                    # Python frees a training's 50 MB of images late: without gc_after_trial each trial added 60 MB.
                    tuning.study.optimize(
                        objective, n_trials=1, catch=(Exception,), callbacks=[log_trial(tuning)], gc_after_trial=True
                    )
            tuning.prune_checkpoints()
            running = sum(trial.state == TrialState.RUNNING for trial in tuning.trials)
        except (Exception, TrialAbandoned) as error:
            failures += 1
            if failures > MAX_FAILURES or not storage.database_error(error):
                raise
            log.info("the database was away for a moment; a trial whose end it doesn't know is retried")
            continue
        failures = 0
        if enough:
            if not running:
                break
            if not waited and WORKER not in os.environ:
                log.info("waiting for %d trial%s of other processes", running, "s" if running > 1 else "")
            time.sleep(POLL)
            waited += POLL
    if max_seconds is not None and tuning.seconds >= max_seconds:
        log.info("max_seconds=%g: %.0f seconds of training are done", max_seconds, tuning.seconds)


def check_errors(trials: Sequence[FrozenTrial]) -> None:
    """Raise a ValueError if there are only failed trials, some of them, all with the same error."""
    errors = {trial.user_attrs.get(ERROR) for trial in trials}
    if len(trials) >= SAME_ERRORS and len(errors) == 1 and all(trial.state == TrialState.FAIL for trial in trials):
        raise ValueError(f"the first {len(trials)} trials failed with the same error: {errors.pop()}")


def log_trial(tuning: Tuning) -> Callable[[Study, FrozenTrial], None]:
    """Return a callback that logs one line for a trial that has ended, with as many of its values as fit."""

    def callback(_: Study, trial: FrozenTrial) -> None:
        is_best = [best.number for best in tuning.finished[:1]] == [trial.number]
        value = f"{tuning.metric} {format_value(trial.value, tuning.metric)}{' (best)' if is_best else ''}"
        result = {
            TrialState.COMPLETE: value,
            TrialState.PRUNED: f"pruned after epoch {trial.user_attrs.get(EPOCHS)} with {value}",
        }.get(trial.state, f"failed: {trial.user_attrs.get(ERROR)}")
        chosen = " ".join(f"{name.partition(' (')[0]}={format_param(value)}" for name, value in trial.params.items())
        line = f"trial {trial.number}: {result}, {trial.user_attrs.get(SECONDS, 0):.1f} s"
        log.info("%s", textwrap.shorten(f"{line}: {chosen}", max(WIDTH, len(line) + 5), placeholder=" ..."))

    return callback


def start_workers(count: int) -> int:
    """Run this command in several processes, which share the machine's cores, and return their exit status.

    Raises:
        KeyboardInterrupt: if the user pressed Ctrl-C, after all of them have ended.
    """
    threads = max(1, joblib.cpu_count() // count)
    log.info("%d workers with %d thread%s each", count, threads, "s" if threads > 1 else "")
    environment = {**os.environ, WORKER: str(os.getpid()), "OMP_NUM_THREADS": str(threads)}
    environment.pop("HYDRA_FULL_ERROR", None)  # command_line sets it for this process alone
    # In sessions of their own, so that a Ctrl-C reaches each of them once, from here.
    workers = [
        subprocess.Popen([sys.executable, *sys.argv], env=environment, start_new_session=True) for _ in range(count)
    ]
    interrupted = False
    with interrupted_by_hangup():
        while any(worker.poll() is None for worker in workers):
            try:
                for worker in workers:
                    worker.wait()
            except KeyboardInterrupt:
                interrupted = True
                for worker in workers:
                    with contextlib.suppress(ProcessLookupError):
                        worker.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    for worker in workers:
        if worker.returncode < 0:
            log.warning("a worker was killed by signal %d; the same command retries its trial", -worker.returncode)
    return max(KILLED if worker.returncode < 0 else worker.returncode for worker in workers)
