"""What a study leaves: its page, its table, and its best setting as an experiment that can be trained."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from omegaconf import DictConfig

from fmnist.jobs.tune_trials import Configs, retrain
from fmnist.measures import direction
from fmnist.reporting.study_charts import Outcome
from fmnist.reporting.study_page import StudyFindings, counts_text, study_page, value_text
from fmnist.runs import write_whole
from fmnist.tuning import results
from fmnist.tuning.search import Parameter, leaves, words_of
from fmnist.tuning.study import Tuning

log = logging.getLogger(__name__)


def conclude(tuning: Tuning, space: Sequence[Parameter], configs: Configs, cfg: DictConfig, *, retrained: int) -> None:
    """Writes and shows what came out, as far as the study has come.

    Args:
        tuning: the study.
        space: what is chosen among.
        configs: of the study.
        cfg: of the job.
        retrained: seeds with which the best and the base setting are trained for a comparison.
    """
    tuning.tidy()
    better, best = direction(cfg.monitor), tuning.best
    found, page = results.outcomes(tuning), tuning.folder / "study.html"
    results.write_trials(tuning.folder / "trials.csv", found, cfg.monitor)
    if best is None:
        write_whole(page, study_page(describe(tuning, space, cfg, found)))
        log.info("no trial has been trained to its end; %s", counts_text(found))
        log.info("page:       %s", page)
        return
    words, value = words_of(space, best.params), f"{cfg.monitor} {value_text(best.value, better)}"
    folder = shlex.quote(str(tuning.folder))
    findings = replace(
        describe(tuning, space, cfg, found),
        experiment=write_experiment(tuning, configs, words, value),
        command=f"python scripts/train.py -m --config-dir {folder} experiment={tuning.folder.name} seed=0,1,2",
    )
    write_whole(page, study_page(findings))
    log.info("best: trial %d with %s", best.number, value)
    log.info("%s; %.0f seconds of training", counts_text(found), tuning.seconds)
    if retrained:
        comparison = compare(tuning, configs, words, cfg, retrained)
        write_whole(page, study_page(replace(findings, retrained=comparison)))
        for sentence in comparison:
            log.info("  %s", sentence)
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
        best=None if best is None else best.number,
        space=[str(parameter) for parameter in leaves(space)],
        logarithmic=results.logarithmic(space),
        importance=results.importance(tuning, space),
        enough=results.ENOUGH,
        facts={key: cfg[key]._target_.rpartition(".")[2] for key in ("sampler", "pruner")},
    )


def write_experiment(tuning: Tuning, configs: Configs, words: Sequence[str], value: str) -> str:
    """The best setting, and what was typed beside it, as the difference from the default."""
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
            f"The best of {len(tuning.counted)} trials of the study {name}: {value}, by which it was chosen.",
            f"  python scripts/train.py --config-dir <folder of the study> experiment={name}",
        ],
        changed,
        {"name": name, **values},
    )
    file = tuning.folder / "experiment" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    write_whole(file, text)
    return text


def compare(tuning: Tuning, configs: Configs, words: Sequence[str], cfg: DictConfig, count: int) -> list[str]:
    """Trains the best and the base setting with seeds that no trial had, and says whether they differ."""
    seeds = range(cfg.seed + 1, cfg.seed + 1 + count)
    settings: Mapping[str, Sequence[str]] = {"best": words, "base": []}
    log.info("training the best and the base setting with %d more seeds each", count)
    values = {name: retrain(tuning, configs, name, setting, seeds, cfg.storage) for name, setting in settings.items()}
    return results.compare(values, cfg.monitor, direction(cfg.monitor))
