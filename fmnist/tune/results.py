"""The results of a study: its table, its page, its best setting as an experiment, and the finalists compared."""

import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd
from markupsafe import Markup
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from fmnist.compare.ranking import NOT_SIGNIFICANT
from fmnist.compare.statistics import LEVEL, holm, sample, welch
from fmnist.config.overrides import program
from fmnist.plotting.terminal import wrapped
from fmnist.runs.files import atomic_write
from fmnist.training.metric_names import direction
from fmnist.tune.page import render_page
from fmnist.tune.space import Space, base_params, flat, overrides_of
from fmnist.tune.study import EPOCHS, ERROR, SECONDS, Tuning, format_param, format_value
from fmnist.tune.trials import Configs, retrain

log = logging.getLogger(__name__)

BASE = "base setting"
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


@dataclass(frozen=True)
class Setting:
    """A setting that a study may end with."""

    name: str
    overrides: Sequence[str]
    params: Mapping[str, Any]


def write_results(
    tuning: Tuning, space: Space, configs: Configs, *, facts: Mapping[str, str], seeds: Sequence[int], finalists: int
) -> None:
    """Write trials.csv, study.html and the experiment of the best setting, and log what came out.

    Args:
        facts: further lines for the page, by their names.
        seeds: seeds with which the finalists and the base setting are retrained; none leaves it out.
        finalists: how many of the best trials are retrained.
    """
    tuning.prune_checkpoints()
    table, counts = trials_table(tuning), counts_text(tuning)
    atomic_write(tuning.folder / "trials.csv", table.to_csv(index=False))
    log.info("%s; %.0f seconds of training", counts, tuning.seconds)
    chosen = choose_setting(tuning, space, configs, seeds, finalists) if tuning.finished else None
    if chosen:
        log.info("train it:   %s", chosen["command"])
    else:
        log.info("no trial has been trained to its end")
    page = tuning.folder / "study.html"
    facts = {"trials": counts, "training": f"{tuning.seconds:,.0f} seconds in all trials together", **facts}
    atomic_write(page, render_page(tuning, space, table, facts, chosen))
    log.info("page:       %s", page)


def choose_setting(
    tuning: Tuning, space: Space, configs: Configs, seeds: Sequence[int], finalists: int
) -> dict[str, Any]:
    """Write the best setting as an experiment, and return what the page says of it."""
    best, metric = tuning.finished[0], tuning.metric
    setting, value, reason, retrained = of_trial(space, best), best.value or 0.0, "the best of all trials", None
    bias = f" (selection bias: best of {len(tuning.finished)})" if len(tuning.finished) > 1 else ""
    result = f"best: {setting.name} with {metric} {format_value(value, metric)}{bias}"
    log.info("%s", wrapped(f"{result}: {' '.join(setting.overrides)}"))
    if seeds:
        setting, value, comparison = retrain_finalists(tuning, space, configs, seeds, finalists)
        reason = f"the mean of {len(seeds)} fresh seed{'s' if len(seeds) > 1 else ''}, the best of {len(comparison)}"
        retrained = Markup(comparison.to_html(index=False, border=0, na_rep=""))  # nosec B704 (pandas escapes)
        log.info("%s\nchosen: %s", comparison.to_string(index=False, na_rep=""), setting.name)
    headline, meaning = format_value(value, metric), f"{metric} ({setting.name}: {reason})"
    folder = shlex.quote(str(tuning.folder))
    return {
        "headline": headline,
        "meaning": meaning,
        "params": {name: format_param(each) for name, each in setting.params.items()},
        "retrained": retrained,
        "experiment": write_experiment(tuning, configs, setting.overrides, f"{headline} {meaning}"),
        "command": f"{program('train')} -m --config-dir {folder} experiment={tuning.folder.name} seed=0,1,2",
    }


def trials_table(tuning: Tuning) -> pd.DataFrame:
    """Return a row for each trial that has begun: trial, state, the metric, each parameter, epochs, seconds, error."""
    frame = tuning.study.trials_dataframe(("number", "state", "value", "params", "user_attrs"))
    params = [name for name in frame.columns if name.startswith("params_")]
    attributes = [f"user_attrs_{name}" for name in (EPOCHS, SECONDS, ERROR)]
    frame = frame.reindex(columns=["number", "state", "value", *params, *attributes])
    names = [name.removeprefix("params_") for name in params]
    frame.columns = pd.Index(["trial", "state", tuning.metric, *names, EPOCHS, SECONDS, ERROR])
    frame = frame[frame.state != "WAITING"]
    state = frame.state.map(STATES).mask(frame.trial.isin(tuning.retried), "interrupted")
    error = frame[ERROR].astype(object).mask((state == "failed") & frame[ERROR].isna(), "its process died")
    return frame.assign(**{"state": state, ERROR: error, EPOCHS: frame[EPOCHS].fillna(0).astype(int)})


def counts_text(tuning: Tuning) -> str:
    """Return how many trials there are, and how many of each state."""
    states = trials_table(tuning).state.value_counts(sort=False)
    return f"{states.sum()} trials: {', '.join(f'{count} {state}' for state, count in states.items())}"


def of_trial(space: Space, trial: FrozenTrial) -> Setting:
    """Return the setting of a trial."""
    return Setting(f"trial {trial.number}", overrides_of(space, trial.params), trial.params)


def write_experiment(tuning: Tuning, configs: Configs, overrides: Sequence[str], which: str) -> str:
    """Write a setting, with what was typed beside it, as an experiment, and return the file's text.

    It holds the setting's difference from the default.
    """
    name = tuning.folder.name
    default = Configs([], name)
    before, choices = default.choices(), configs.choices(overrides)
    searched = {each.partition("=")[0] for each in overrides}
    changed = {group: option for group, option in choices.items() if before.get(group) != option or group in searched}
    base = flat(default.plain(tuple(f"{group}={option}" for group, option in changed.items())))
    values = OmegaConf.create({"name": name})
    for key, value in flat(configs.plain(tuple(overrides))).items():
        differs = key not in base or base[key] != value
        if (differs or key in searched) and key not in ("outputs", "report"):  # which are about this study
            OmegaConf.update(values, key, value, force_add=True)
    text = f"# @package _global_\n# The result of a study of {len(tuning.trials)} trials: {which}.\n"
    text += f"#   python scripts/train.py --config-dir <folder of the study> experiment={name}\n"
    if changed:
        lines = [f"  - override /{group}: {option}\n" for group, option in changed.items()]
        text += "".join(["defaults:\n", *lines, "\n"])
    text += OmegaConf.to_yaml(values)
    folder = tuning.folder / "experiment"
    folder.mkdir(exist_ok=True)
    atomic_write(folder / f"{name}.yaml", text)
    return text


def retrain_finalists(
    tuning: Tuning, space: Space, configs: Configs, seeds: Sequence[int], count: int
) -> tuple[Setting, float, pd.DataFrame]:
    """Train the base setting and the settings of the best trials with seeds that no trial had.

    Returns:
        The setting with the best mean (of equal ones the base setting), this mean, and the comparison with the base.
    """
    params = base_params(space, configs.plain(), configs.choices())
    base = Setting(BASE, [] if params is None else overrides_of(space, params), params or {})
    finalists = [of_trial(space, trial) for trial in tuning.finished if trial.params != params][:count]
    settings = {setting.name: setting for setting in (base, *finalists)}
    log.info("retraining %s with %d seed%s each", ", ".join(settings), len(seeds), "s" if len(seeds) > 1 else "")
    values = {name: retrain(tuning, configs, name, each.overrides, seeds) for name, each in settings.items()}
    means = {name: fmean(each) for name, each in values.items()}
    best = (max if direction(tuning.metric) == "max" else min)(means, key=means.__getitem__)
    return settings[best], means[best], compare_with_base(values, tuning.metric)


def compare_with_base(retrained: Mapping[str, Sequence[float]], metric: str) -> pd.DataFrame:
    """Compare the metric of each setting, by name and with each seed, with that of the base setting.

    Returns:
        A row for each setting as texts, the best mean first: mean and standard deviation, difference to the base
        setting, and the p-value of Welch's test, Holm-corrected for the number of tests.
    """
    samples = {name: sample(values) for name, values in retrained.items()}
    order = sorted(samples, key=lambda name: samples[name].mean, reverse=direction(metric) == "max")
    gaps = {name: welch(samples[name], samples[BASE]) for name in order if name != BASE}
    p_values = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))
    rows = []
    for name in order:
        spread = f" ± {format_value(samples[name].std, metric)}" if samples[name].n > 1 else ""
        mean = format_value(samples[name].mean, metric)
        row = {"setting": name, metric: f"{mean}{spread}", "seeds": str(samples[name].n)}
        if name in gaps:
            gap, p = gaps[name].mean, p_values[name]
            row["difference"] = f"{gap:+.4f}" if direction(metric) == "min" else f"{100 * gap:+.2f} points"
            row["p (Welch, Holm)"] = "" if math.isnan(p) else f"{p:.2g}{'' if p <= LEVEL else f', {NOT_SIGNIFICANT}'}"
        rows.append(row)
    return pd.DataFrame(rows)
