"""One trial is one training: its config, its run folder, and what the study learns of it."""

import dataclasses
import functools
import json
import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf
from optuna import TrialPruned
from optuna.trial import Trial

from fmnist.config import logs
from fmnist.config.build import build_training
from fmnist.config.errors import one_line
from fmnist.config.help import groups
from fmnist.config.instantiate import plain_config
from fmnist.config.keys import TrainKeys
from fmnist.config.overrides import key_of
from fmnist.run_training import train_and_report
from fmnist.runs import provenance
from fmnist.runs.run import Run, claim_run
from fmnist.training.callbacks import Pruning, TrainingPruned
from fmnist.training.fit import prepare_data
from fmnist.tune.space import Space, suggest
from fmnist.tune.storage import database_error
from fmnist.tune.study import EPOCHS, ERROR, SECONDS, Tuning, format_value

log = logging.getLogger(__name__)

GROUPS = [group for group in groups("train") if group not in ("experiment", "sweep")]
"""The groups of a training's config."""
KEYS = {field.name for field in dataclasses.fields(TrainKeys)}
"""The keys of a training's config that belong to no group."""


class Configs:
    """The configs of a study's trainings: what was typed to `tune` and the overrides of a trial, composed by Hydra."""

    def __init__(self, typed: Sequence[str], study: str) -> None:
        self.typed = tuple(typed)
        self.study = study
        self.plain = functools.cache(self._plain)
        """Returns the config with a tuple of further overrides, as plain values."""
        self._composed = functools.cache(self._compose)

    def __call__(self, overrides: Sequence[str] = ()) -> DictConfig:
        return OmegaConf.create(self.plain(tuple(overrides)))

    def _plain(self, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
        options = tuple(each for each in overrides if "." not in key_of(each))
        cfg = self._composed(options)
        cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key in KEYS or key in GROUPS])
        for each in overrides:
            if each not in options:  # a value needs no composing, which takes 0.25 s
                key, _, text = each.partition("=")
                OmegaConf.update(cfg, key, json.loads(text))
        return plain_config(cfg) | {"name": self.study, "test": False, "resume": None}

    def _compose(self, options: tuple[str, ...]) -> DictConfig:
        return compose("tune", [*self.typed, *options], return_hydra_config=True)

    def choices(self, overrides: Sequence[str] = ()) -> dict[str, str]:
        """Return the option of each group of a training's config."""
        cfg = self._composed(tuple(each for each in overrides if "." not in key_of(each)))
        found = cfg.hydra.runtime.choices
        return {group: str(found[group]) for group in GROUPS if found.get(group)}

    def check_free(self, space: Space) -> None:
        """Raise a ValueError if an override sets what the search chooses."""
        for each in self.typed:
            if (key := key_of(each)) in {parameter.key for parameter in space}:
                raise ValueError(f"{each}: the search chooses {key}; ~search.{key} leaves it to you")


def searchable_options(group: str) -> list[str]:
    """Return the options of a group of a training's config; none for any other key."""
    return known_options(group) if group in GROUPS else []


def known_options(group: str) -> list[str]:
    """Return the options of any group, those in --config-dir included."""
    return list(GlobalHydra.instance().config_loader().get_group_options(group))


def check_trainings(space: Space, configs: Configs) -> None:
    """Build the training of the base setting and of the ends of each parameter, and get the data.

    Raises:
        ValueError: naming what can't be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = build_training(configs(), Run(Path(folder)))
        if training.trainer.world_size > 1:
            raise ValueError("a trial has one device: trainer.devices=1; n_jobs=2 runs two of them at the same time")
        prepare_data(training)
        for parameter in space:
            for value in parameter.ends:
                overrides = [*([parameter.option] if parameter.option else []), parameter.override(value)]
                try:
                    build_training(configs(overrides), Run(Path(folder)))
                except ValueError as error:
                    raise ValueError(f"search.{parameter.key}: {error}") from error


class TrialAbandoned(BaseException):
    """The database was away during a trial, which stays as that of a killed process does, and is retried."""


def run_trial(trial: Trial, tuning: Tuning, space: Space, configs: Configs) -> float:
    """Train what a trial chooses, in a run folder of its own, and return the monitored metric of its checkpoint.

    The study's lock, which is held, is released as soon as the trial has its folder.

    Raises:
        TrialPruned: if the pruner ended it.
        KeyboardInterrupt: if the user pressed Ctrl-C. The trial is queued again.
        TrialAbandoned: if the database was away.
    """
    try:
        return _run_trial(trial, tuning, space, configs)
    except Exception as error:
        if database_error(error):
            raise TrialAbandoned from error
        raise


def _run_trial(trial: Trial, tuning: Tuning, space: Space, configs: Configs) -> float:
    run = tuning.run(trial.number)

    def should_prune(epoch: int, value: float) -> bool:
        if not math.isfinite(value):
            raise ValueError(f"{tuning.metric} is {value} after epoch {epoch}")
        trial.report(value, epoch)
        return epoch != last_epoch and trial.should_prune()

    try:
        overrides = suggest(trial, space)
        last_epoch = configs.plain(tuple(overrides))["trainer"]["max_epochs"]
        return train_setting(run, configs, overrides, Pruning(tuning.metric, should_prune), begun=tuning.lock.release)
    except TrainingPruned as pruned:
        raise TrialPruned(str(pruned)) from None
    except KeyboardInterrupt:
        tuning.retry(trial.number)
        raise
    except Exception as error:
        if database_error(error):
            raise
        trial.set_user_attr(ERROR, one_line(error) or type(error).__name__)
        raise
    finally:
        metrics = run.load_metrics()
        trial.set_user_attr(SECONDS, metrics.get("train/seconds", 0.0))
        trial.set_user_attr(EPOCHS, metrics.get("epochs", 0))


def train_setting(
    run: Run, configs: Configs, overrides: Sequence[str], *callbacks: Callback, begun: Callable[[], None] | None = None
) -> float:
    """Train a setting in a run's folder, which is emptied, and return the monitored metric of the chosen checkpoint.

    The log goes to the folder instead of to the terminal. `begun` is called as soon as the folder is locked.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with claim_run(run.folder).locked(), logs.to_file(run.log_file), logs.off_terminal():
        if begun:
            begun()
        try:
            training = build_training(configs(overrides), run, extra_callbacks=callbacks)
            prepare_data(training)
            environment = provenance.environment()
            command = [each if key_of(each) != "storage" else "storage=***" for each in environment["command"]]
            typed = [each for each in configs.typed if key_of(each).split(".")[0] in (*KEYS, *GROUPS, "experiment")]
            entries = {"overrides": [*typed, *overrides], "choices": configs.choices(overrides)}
            entries["varied"] = list(overrides)
            run.update_record(**environment | {"command": command}, **entries, start=provenance.now())
            value = train_and_report(training)
            if value is None or not math.isfinite(value):
                raise ValueError(f"{configs.plain()['monitor']} is {value}")
        except TrainingPruned:
            raise
        except Exception:
            log.exception("the training failed")
            raise
    return value


def retrain(tuning: Tuning, configs: Configs, name: str, overrides: Sequence[str], seeds: Sequence[int]) -> list[float]:
    """Return the monitored metric of a setting with each of several seeds. What was trained before is read.

    Raises:
        RunIsBusy: if another process trains one of them.
        KeyboardInterrupt: if the user pressed Ctrl-C.
    """
    values = []
    for seed in seeds:
        run = Run(tuning.folder / "retrained" / name.replace(" ", "_") / f"seed={seed}")
        setting = [*overrides, f"seed={seed}"]
        record = run.load_record()
        if record.get("status") != "finished" or record.get("setting") != setting or "value" not in record:
            record = {"value": train_setting(run, configs, setting)}
            run.update_record(setting=setting, **record)
        values.append(float(record["value"]))
        log.info("  %s, seed %d: %s", name, seed, format_value(values[-1], tuning.metric))
    return values
