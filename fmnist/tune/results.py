"""What came out of a study, in plain values: for the terminal, for files and for its page."""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from fmnist.compare.statistics import LEVEL, holm, sample, welch
from fmnist.runs.files import atomic_write
from fmnist.tune.search import Parameter, as_typed, leaves
from fmnist.tune.study import EPOCHS, ERROR, SECONDS, Tuning
from fmnist.tune.study_charts import Outcome
from fmnist.tune.study_page import value_text

BASE = "base setting"
ENOUGH = 10  # finished trials, to tell which parameters matter
STATES: Any = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def outcomes(tuning: Tuning) -> list[Outcome]:
    """All trials that have begun."""
    repeated = tuning.repeated
    begun = [trial for trial in tuning.trials if trial.state != TrialState.WAITING]
    return [_outcome(trial, cut_off=trial.number in repeated) for trial in begun]


def _outcome(trial: FrozenTrial, *, cut_off: bool) -> Outcome:
    state: Any = "cut off" if cut_off and trial.state == TrialState.FAIL else STATES[trial.state]
    return Outcome(
        trial.number,
        state,
        trial.value if state in ("finished", "pruned") else None,
        {name: readable(value) for name, value in trial.params.items()},
        float(trial.user_attrs.get(SECONDS, 0)),
        int(trial.user_attrs.get(EPOCHS, 0)),
        trial.user_attrs.get(ERROR, "its process died") if state == "failed" else "",
    )


def readable(value: Any) -> Any:
    """A parameter's value, lists and null as they are typed."""
    return as_typed(value) if value is None or (isinstance(value, str) and as_typed(value)[:1] == "[") else value


def importance(tuning: Tuning, space: Sequence[Parameter]) -> dict[str, float]:
    """How much each parameter explains, as a share of 1; nothing where there are too few finished trials."""
    done = tuning.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(done) < ENOUGH or not space:
        return {}
    shares = get_param_importances(tuning.study)
    return shares if all(map(math.isfinite, shares.values())) else {}


def logarithmic(space: Sequence[Parameter]) -> set[str]:
    """The names of the parameters on a logarithmic scale."""
    return {parameter.name for parameter in leaves(space) if getattr(parameter.distribution, "log", False)}


def write_trials(file: Path, found: Sequence[Outcome], metric: str) -> None:
    """A row for each trial."""
    names = list(dict.fromkeys(name for outcome in found for name in outcome.parameters))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", metric, *names, "epochs", "seconds", "error"])
    for one in found:
        values = [one.parameters.get(name, "") for name in names]
        value = "" if one.value is None else one.value
        table.writerow([one.number, one.state, value, *values, one.epochs, round(one.seconds, 3), one.error])
    atomic_write(file, text.getvalue())


def differences(
    base: Mapping[str, Any], other: Mapping[str, Any], keep: Collection[str], prefix: str = ""
) -> dict[str, Any]:
    """What the other config has that the base hasn't, nested as it is there; values of the keys to keep always."""
    found: dict[str, Any] = {}
    for key, value in other.items():
        below = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if changed := differences(below, value, keep, f"{prefix}{key}."):
                found[key] = changed
        elif key not in base or value != below or f"{prefix}{key}" in keep:
            found[key] = value
    return found


def experiment_text(lines: Sequence[str], choices: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """An experiment file.

    Args:
        lines: its comments.
        choices: options by group.
        values: nested as the config is.
    """
    text = "# @package _global_\n" + "".join(f"# {line}\n" for line in lines)
    if choices:
        text += (
            "defaults:\n" + "".join(f"  - override /{group}: {option}\n" for group, option in choices.items()) + "\n"
        )
    return text + str(yaml.safe_dump(dict(values), sort_keys=False))


def compare(retrained: Mapping[str, Sequence[float]], metric: str, better: str) -> list[str]:
    """Each setting's values with several seeds against the base setting's, in sentences, the best mean first.

    The p is Welch's, after Holm's correction where there are several: how often means so far apart would come of
    settings that are equally good.
    """
    samples = {name: sample(values) for name, values in retrained.items()}
    order = sorted(samples, key=lambda name: samples[name].mean, reverse=better == "max")
    gaps = {name: welch(samples[name], samples[BASE]) for name in order if name != BASE}
    p_values = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))
    sentences = []
    for name in order:
        each = samples[name]
        spread = f", sd {value_text(each.sd, better)}" if each.n > 1 else ""
        seeds = f"mean of {each.n} seeds" if each.n > 1 else "1 seed"
        text = f"{name}: {metric} {value_text(each.mean, better)} ({seeds}{spread})"
        if name != BASE:
            gap = gaps[name].mean
            text += f", {gap:+.4f}" if better == "min" else f", {100 * gap:+.2f} points"
            text += f" to the {BASE}"
            if not math.isnan(p := p_values[name]):
                text += f", p = {p:.2g}" + (": it may well be chance" if p > LEVEL else "")
        sentences.append(text)
    if any(not math.isnan(p) for p in p_values.values()):
        sentences.append(f"p: Welch's t-test{f', Holm-corrected for {len(gaps)}' if len(gaps) > 1 else ''}")
    return sentences
