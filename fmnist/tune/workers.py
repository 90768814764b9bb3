"""The work on a study: trial after trial in this process, or in several."""

import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from omegaconf import DictConfig
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist.config.instantiate import build, plain_config
from fmnist.config.processes import interrupted_by_hangup
from fmnist.config.validation import check_arguments
from fmnist.training.metric_names import direction
from fmnist.tune.results import readable
from fmnist.tune.sampling import SeededByNumber, pruner_bounds, sampler_bounds
from fmnist.tune.search import Parameter, leaves
from fmnist.tune.study import EPOCHS, ERROR, SECONDS, Tuning, same_error
from fmnist.tune.study_page import parameter_text, value_text
from fmnist.tune.trials import Configs, run_trial

log = logging.getLogger(__name__)

WORKER = "FMNIST_TUNE_WORKER"
"""Set, in the environment of a worker, to the process that started it, which does the study's beginning and end."""
HOPELESS = 3  # trials that fail alike, before any other has ended: so would the rest
KILLED = 1  # the exit status where a worker was


def build_parts(cfg: DictConfig) -> tuple[BaseSampler, BasePruner]:
    """The sampler and the pruner of the config.

    Raises:
        ValueError: naming the key that asks for something that can't be.
    """
    bounds: dict[str, Callable[..., None]] = {"sampler": sampler_bounds, "pruner": pruner_bounds}
    for key, bounded in bounds.items():
        given = plain_config(cfg[key]) if isinstance(cfg[key], DictConfig) else {}
        known = bounded.__annotations__
        check_arguments(key, bounded, {name: value for name, value in given.items() if name in known})
    make = functools.partial(_build_sampler, cfg.sampler)
    make(0)  # refused now or never
    pruner: BasePruner = build("pruner", cfg.pruner, BasePruner)
    return SeededByNumber(make, cfg.seed), pruner


def _build_sampler(node: DictConfig, seed: int) -> BaseSampler:
    sampler: BaseSampler = build("sampler", node, BaseSampler, seed=seed)
    return sampler


def introduce(cfg: DictConfig, tuning: Tuning, space: Sequence[Parameter]) -> None:
    """Says what is looked for, and where."""
    done = sum(trial.state != TrialState.RUNNING for trial in tuning.counted)
    target = cfg.sampler._target_.rpartition(".")[2], cfg.pruner._target_.rpartition(".")[2]
    log.info("study %s in %s", tuning.folder.name, tuning.folder)
    for parameter in leaves(space):
        log.info("  %s", parameter)
    log.info("%s, %s; best is the %simum of %s", *target, direction(cfg.monitor), cfg.monitor)
    log.info("%d trial%s, of which %d are done", cfg.trials, "s" if cfg.trials > 1 else "", done)


def work(cfg: DictConfig, tuning: Tuning, space: Sequence[Parameter], configs: Configs) -> None:
    """Does trial after trial until the study has as many, or as many seconds, as it may have.

    Raises:
        ValueError: if the first trials all fail alike.
        KeyboardInterrupt: if the person pressed Ctrl-C.
    """

    def objective(trial: object) -> float:
        return run_trial(trial, tuning, space, configs, cfg.storage)  # type: ignore[arg-type]

    show = functools.partial(show_trial, cfg.monitor, tuning)
    before = {trial.number for trial in tuning.counted}
    while True:
        tuning.turn.acquire()  # until the trial has its folder: nobody else counts, takes or buries one meanwhile
        try:
            for number in tuning.bury():
                log.info("trial %d: its process has died; it is done again", number)
            if error := same_error([trial for trial in tuning.counted if trial.number not in before], HOPELESS):
                raise ValueError(f"{HOPELESS} trials failed alike, and none did better: {error}")
            if len(tuning.counted) >= cfg.trials:
                return
            if cfg.max_seconds is not None and tuning.seconds >= cfg.max_seconds:
                log.info("max_seconds=%g: %.0f seconds of training are done", cfg.max_seconds, tuning.seconds)
                return
            # Python finds the circles in which a trial's 50 MB of images hang too late: without gc_after_trial the
            # process grew by 60 MB with each trial.
            tuning.study.optimize(objective, n_trials=1, catch=(Exception,), callbacks=[show], gc_after_trial=True)
        finally:
            tuning.turn.release()
        tuning.tidy()


def show_trial(monitor: str, tuning: Tuning, _: Study, trial: FrozenTrial) -> None:
    """A line for a trial that has ended."""
    better, best = direction(monitor), tuning.best
    chosen = {name.partition(" (")[0]: parameter_text(readable(value)) for name, value in trial.params.items()}
    if trial.state == TrialState.COMPLETE:
        result = f"{monitor} {value_text(trial.value, better)}"
    elif trial.state == TrialState.PRUNED:
        result = f"pruned after epoch {trial.user_attrs.get(EPOCHS)} ({value_text(trial.value, better)})"
    else:
        result = f"failed: {trial.user_attrs.get(ERROR)}"
    words = " ".join(f"{key}={value}" for key, value in chosen.items())
    parts = [f"trial {trial.number}: {words}", result, f"{trial.user_attrs.get(SECONDS, 0):.1f} s"]
    if best is not None:
        parts.append(f"best {value_text(best.value, better)} (trial {best.number})")
    log.info("  |  ".join(parts))


def start_workers(count: int) -> int:
    """The same command in that many processes, which share this machine's cores; returns their exit status.

    Raises:
        KeyboardInterrupt: if the person pressed Ctrl-C, when all of them have ended.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    log.info("%d workers with %d thread%s each", count, threads, "s" if threads > 1 else "")
    environment = {**os.environ, WORKER: str(os.getpid()), "OMP_NUM_THREADS": str(threads)}
    environment.pop("HYDRA_FULL_ERROR", None)  # command_line sets it for this process alone
    command = [sys.executable, *sys.argv]
    # In sessions of their own, so that a Ctrl-C reaches each of them once: from here.
    workers = [subprocess.Popen(command, env=environment, start_new_session=True) for _ in range(count)]
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
            log.warning("a worker was killed by signal %d; the same command does its trial again", -worker.returncode)
    return max(KILLED if worker.returncode < 0 else worker.returncode for worker in workers)
