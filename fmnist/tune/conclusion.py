"""What a study leaves: its page, its table, and its best setting as an experiment that can be trained."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from fmnist.runs.files import atomic_write
from fmnist.training.metric_names import direction
from fmnist.tune import results
from fmnist.tune.results import BASE
from fmnist.tune.search import Parameter, leaves, present, words_of
from fmnist.tune.study import Tuning
from fmnist.tune.study_charts import Outcome
from fmnist.tune.study_page import StudyFindings, counts_text, study_page, value_text
from fmnist.tune.trials import Configs, retrain

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The setting with which a study ends."""

    name: str
    words: Sequence[str]
    number: int | None
    """Of its trial; None if it had none."""
    value: float
    why: str


def conclude(tuning: Tuning, space: Sequence[Parameter], configs: Configs, cfg: DictConfig, *, retrained: int) -> None:
    """Writes and shows what came out, as far as the study has come.

    Args:
        tuning: the study.
        space: what is chosen among.
        configs: of the study.
        cfg: of the job.
        retrained: seeds with which the finalists and the base setting are trained for a comparison.
    """
    tuning.tidy()
    better, best = direction(cfg.monitor), tuning.best
    found, page = results.outcomes(tuning), tuning.folder / "study.html"
    results.write_trials(tuning.folder / "trials.csv", found, cfg.monitor)
    if best is None:
        atomic_write(page, study_page(describe(tuning, space, cfg, found)))
        log.info("no trial has been trained to its end; %s", counts_text(found))
        log.info("page:       %s", page)
        return
    log.info("best: trial %d with %s %s", best.number, cfg.monitor, value_text(best.value, better))
    log.info("%s; %.0f seconds of training", counts_text(found), tuning.seconds)
    assert best.value is not None
    chosen = Chosen(trial_name(best), words_of(space, best.params), best.number, best.value, "by which it was chosen")
    sentences: list[str] = []
    if retrained:
        chosen, sentences = hold_final(tuning, space, configs, cfg, retrained)
        for sentence in [*sentences, f"chosen: {chosen.name}"]:
            log.info("  %s", sentence)
    meaning = f"{cfg.monitor} of {'the ' * (chosen.name == BASE)}{chosen.name}, {chosen.why}"
    folder = shlex.quote(str(tuning.folder))
    findings = replace(
        describe(tuning, space, cfg, found),
        chosen=chosen.number,
        headline=value_text(chosen.value, better),
        meaning=meaning,
        retrained=sentences,
        experiment=write_experiment(tuning, configs, chosen.words, f"{value_text(chosen.value, better)} {meaning}"),
        command=f"python scripts/train.py -m --config-dir {folder} experiment={tuning.folder.name} seed=0,1,2",
    )
    atomic_write(page, study_page(findings))
    log.info("page:       %s", page)
    log.info("train it:   %s", findings.command)


def describe(tuning: Tuning, space: Sequence[Parameter], cfg: DictConfig, found: Sequence[Outcome]) -> StudyFindings:
    """What the page of a study shows, but for its best setting."""
    best = tuning.best
    return StudyFindings(
        name=tuning.folder.name,
        metric=cfg.monitor,
        better=direction(cfg.monitor),
        outcomes=found,
        chosen=None if best is None else best.number,
        space=[str(parameter) for parameter in leaves(space)],
        logarithmic=results.logarithmic(space),
        importance=results.importance(tuning, space),
        enough=results.ENOUGH,
        facts={key: cfg[key]._target_.rpartition(".")[2] for key in ("sampler", "pruner")},
    )


def write_experiment(tuning: Tuning, configs: Configs, words: Sequence[str], which: str) -> str:
    """The chosen setting, and what was typed beside it, as the difference from the default."""
    default = Configs([], tuning.folder.name)
    usual, chosen = default.choices(), configs.choices(words)
    searched = [word.split("=")[0] for word in words]
    changed = {group: chosen[group] for group in chosen if usual.get(group) != chosen[group] or group in searched}
    base = default.plain(tuple(f"{group}={option}" for group, option in changed.items()))
    values = results.differences(base, configs.plain(tuple(words)), keep=searched)
    values = {key: below for key, below in values.items() if key not in ("name", "outputs", "report", "test")}
    name = tuning.folder.name
    text = results.experiment_text(
        [
            f"Of a study of {len(tuning.counted)} trials: {which}.",
            f"  python scripts/train.py --config-dir <folder of the study> experiment={name}",
        ],
        changed,
        {"name": name, **values},
    )
    file = tuning.folder / "experiment" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    atomic_write(file, text)
    return text


def hold_final(
    tuning: Tuning, space: Sequence[Parameter], configs: Configs, cfg: DictConfig, count: int
) -> tuple[Chosen, list[str]]:
    """Trains the base setting and those of the best trials with seeds that no trial had, and takes the best mean.

    Returns:
        the setting, and all of them compared in sentences.
    """
    base = present(space, configs.plain(), configs.choices())
    finalists = [trial for trial in tuning.finished if trial.params != base][: cfg.finalists]
    words = {BASE: [] if base is None else words_of(space, base)}
    numbers = {BASE: next((trial.number for trial in tuning.finished if trial.params == base), None)}
    for trial in finalists:
        words[trial_name(trial)] = words_of(space, trial.params)
        numbers[trial_name(trial)] = trial.number
    log.info("training %s with %d more seed%s each", ", ".join(words), count, "s" if count > 1 else "")
    seeds = range(cfg.seed + 1, cfg.seed + 1 + count)
    values = {name: retrain(tuning, configs, name, each, seeds, cfg.storage) for name, each in words.items()}
    better = direction(cfg.monitor)
    means = {name: fmean(each) for name, each in values.items()}
    name = (max if better == "max" else min)(means, key=means.__getitem__)  # of equals the base setting
    seeds_text = f"the mean of {count} seeds" if count > 1 else "with a seed"
    number = f"{len(finalists)} finalists" if len(finalists) != 1 else "1 finalist"
    why = f"{seeds_text} that no trial had: the best of {number} and the base setting"
    return Chosen(name, words[name], numbers[name], means[name], why), results.compare(values, cfg.monitor, better)


def trial_name(trial: FrozenTrial) -> str:
    """Of a finalist, and of the folder with its runs."""
    return f"trial {trial.number}"
