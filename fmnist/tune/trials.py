"""Trainings of a study: a trial, or a setting once more with other seeds."""

import functools
import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from optuna import TrialPruned
from optuna.trial import Trial

from fmnist.config import logs
from fmnist.config.build import build_training
from fmnist.config.instantiate import one_line, plain_config
from fmnist.config.overrides import key_of
from fmnist.runs import provenance as record
from fmnist.runs.run import Run, claim_run
from fmnist.training.callbacks import Pruning, TrainingPruned
from fmnist.training.metric_names import direction
from fmnist.training.train import Training, set_up, train
from fmnist.tune.search import Parameter, ends, keys_of, suggest
from fmnist.tune.storage import shown
from fmnist.tune.study import EPOCHS, ERROR, SECONDS, Tuning, put_back
from fmnist.tune.study_page import value_text

log = logging.getLogger(__name__)

OWN = ("search", "sampler", "pruner", "study", "trials", "max_seconds", "n_jobs", "storage", "retrain", "finalists")
"""Keys of conf/tune.yaml that no training has."""
UNSEARCHED = ("search", "sampler", "pruner", "experiment", "sweep")
"""Groups that are no part of a training's config."""


class Configs:
    """The configs of a study's trainings: what was typed and what a trial chooses, composed as any training's.

    Args:
        typed: the words of tune's command line.
        study: its name.
    """

    def __init__(self, typed: Sequence[str], study: str) -> None:
        self.typed = tuple(typed)
        self.study = study
        self.plain = functools.cache(self._plain)
        """The config with these words more, a tuple, as plain values."""
        self._composed = functools.cache(self._compose)

    def __call__(self, words: Sequence[str] = ()) -> DictConfig:
        return OmegaConf.create(self.plain(tuple(words)))

    def _plain(self, words: tuple[str, ...] = ()) -> dict[str, Any]:
        values = [word for word in words if "." in key_of(word)]  # what a trial draws: it needs no composing
        cfg = self._composed(tuple(word for word in words if word not in values))
        cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in (*OWN, "hydra")])
        for word in values:
            key, _, text = word.partition("=")
            OmegaConf.update(cfg, key, json.loads(text))
        return plain_config(cfg) | {"name": self.study, "test": False, "resume": None}

    def _compose(self, words: tuple[str, ...]) -> DictConfig:
        return compose("tune", [*self.typed, *words], return_hydra_config=True)

    def choices(self, words: Sequence[str] = ()) -> dict[str, str]:
        """The option of each group that a training's config has."""
        found = self._composed(tuple(word for word in words if "." not in key_of(word))).hydra.runtime.choices
        return {
            str(group): str(found[group])
            for group in found
            if "/" not in str(group) and group not in UNSEARCHED and found[group]
        }

    @staticmethod
    def options(group: str) -> list[str]:
        """The options of a group that can be searched; none for what is no group."""
        if group in UNSEARCHED or "." in group:
            return []
        return Configs.known(group)

    @staticmethod
    def known(group: str) -> list[str]:
        """The options of any group, those of other folders (--config-dir) included."""
        return list(GlobalHydra.instance().config_loader().get_group_options(group))

    def check_free(self, space: Sequence[Parameter]) -> None:
        """Refuses words that set what the search is to choose.

        Raises:
            ValueError: naming the word and the way out.
        """
        for word in self.typed:
            if (key := key_of(word)) in keys_of(space):
                raise ValueError(f"{word}: the search chooses {key}; ~search.{key} leaves it to you")


def check_trainings(space: Sequence[Parameter], configs: Configs) -> None:
    """Looks whether everything that can be chosen can be trained, and the data be had.

    Raises:
        ValueError: naming what can't.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = build_training(configs(), Run(Path(folder)))
        if session.trainer.world_size > 1:
            raise ValueError("a trial has one device: trainer.devices=1; n_jobs=2 has two of them at the same time")
        set_up(session)
        for parameter, words in ends(space):
            try:
                build_training(configs(words), Run(Path(folder)))
            except ValueError as error:
                raise ValueError(f"search.{parameter.key}: {error}") from error


def run_trial(trial: Trial, tuning: Tuning, space: Sequence[Parameter], configs: Configs, secret: str | None) -> float:
    """Trains what a trial chooses in a run folder of its own; returns the monitored metric.

    Args:
        trial: a new one; it learns of each epoch.
        tuning: its study, whose turn is held, and given up as soon as the folder is taken.
        space: what is chosen among.
        configs: of the study.
        secret: a URL whose password nothing may hold.

    Raises:
        TrialPruned: if the study saw no hope.
        KeyboardInterrupt: if the person pressed Ctrl-C; the trial is put back.
    """
    run, monitor = tuning.run(trial.number), configs.plain()["monitor"]
    session: Training | None = None

    def hopeless(epoch: int, value: float) -> bool:
        assert session is not None
        trial.set_user_attr(SECONDS, session.history.seconds)
        trial.set_user_attr(EPOCHS, epoch)
        if not math.isfinite(value):
            raise ValueError(f"{monitor} is {value} after epoch {epoch}")
        trial.report(value, epoch)
        return epoch != session.trainer.max_epochs and trial.should_prune()

    try:
        words = suggest(trial, space)
        run.folder.mkdir(exist_ok=True)
        with claim_run(run.folder).locked(), logs.to_file(run.log_file), logs.off_terminal():
            tuning.turn.release()
            try:
                session = begin(run, configs, words, secret, Pruning(monitor, hopeless))
                value = train(session)
                if value is None or not math.isfinite(value):
                    raise ValueError(f"{monitor} is {value}")
                return value
            except Exception as error:
                if not isinstance(error, TrainingPruned):
                    log.exception("the trial failed")
                raise
    except TrainingPruned as pruned:
        raise TrialPruned(str(pruned)) from None
    except KeyboardInterrupt:
        put_back(tuning.study, tuning.trials[trial.number], died=False)
        raise
    except Exception as error:
        trial.set_user_attr(ERROR, one_line(error) or type(error).__name__)
        raise
    finally:
        if session is not None:
            trial.set_user_attr(SECONDS, session.history.seconds)
            trial.set_user_attr(EPOCHS, session.history.epochs)


def begin(run: Run, configs: Configs, words: Sequence[str], secret: str | None, *callbacks: Pruning) -> Training:
    """A training that is ready to start, and its record."""
    session = build_training(configs(words), run, extra_callbacks=callbacks)
    set_up(session)
    typed = [word for word in configs.typed if key_of(word).split(".")[0] not in OWN]
    entries = {"overrides": [*typed, *words], "choices": configs.choices(words), "start": record.now()}
    run.update_record(**without(secret, record.environment()), **entries)
    return session


def without(secret: str | None, value: Any) -> Any:
    """The same without the password of a URL."""
    if secret is None:
        return value
    if isinstance(value, Mapping):
        return {key: without(secret, below) for key, below in value.items()}
    if isinstance(value, list):
        return [without(secret, below) for below in value]
    return value.replace(secret, shown(secret)) if isinstance(value, str) else value


def retrain(
    tuning: Tuning, configs: Configs, name: str, words: Sequence[str], seeds: Sequence[int], secret: str | None
) -> list[float]:
    """The monitored metric of a setting with each of the seeds; what has been trained already is not trained again.

    Args:
        tuning: the study, in whose folder `retrained` the runs lie.
        configs: of the study.
        name: of the setting; its folder has it, too.
        words: the setting.
        seeds: of the trainings.
        secret: a URL whose password nothing may hold.

    Raises:
        RunIsBusy: if another process is training one of them.
        KeyboardInterrupt: if the person pressed Ctrl-C.
    """
    values = []
    for seed in seeds:
        run = Run(tuning.folder / "retrained" / name.replace(" ", "_") / f"seed={seed}")
        own = [*words, f"seed={seed}"]
        done = run.load_record()
        if done.get("status") != "finished" or done.get("setting") != own or "value" not in done:
            run.folder.mkdir(parents=True, exist_ok=True)
            with claim_run(run.folder).locked(), logs.to_file(run.log_file), logs.off_terminal():
                value = train(begin(run, configs, own, secret))
                run.update_record(setting=own, value=value)
            done = run.load_record()
        values.append(float(done["value"]))
        log.info("  %s, seed %d: %s", name, seed, value_text(values[-1], direction(configs.plain()["monitor"])))
    return values
