"""What the trials of a study choose among: read from a config's `search`, checked, and drawn for each trial."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, MinLen
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from fmnist.config.validation import check_arguments, check_value, did_you_mean

Scalar = bool | int | float | str | None
Composed = Callable[[tuple[str, ...]], Mapping[str, Any]]
"""The config, as plain values, that a few more words on the command line give."""
Options = Callable[[str], Sequence[str]]
"""The options of a group; none for what is no group."""

CHOICES = "choices"
FIXED = ("pictures", "data.root", "data.verify", "data.val_size", "data.split_seed", "trainer.limit_val_batches")
"""What decides how a trial is measured or drawn, not how well it learns."""


@dataclass(frozen=True)
class Parameter:
    """One thing that a trial chooses: a value of the config, or an option of a group."""

    key: str
    """Where it stands in the config, as it is typed."""
    distribution: BaseDistribution
    name: str
    """Of its own in the study: a key that several options of a group have stands once for each."""
    branches: Mapping[str, Sequence["Parameter"]] = field(default_factory=dict)
    """Of a group: what there is to choose once an option is."""

    def __str__(self) -> str:
        """The name and its range, for people."""
        chosen = self.distribution
        if isinstance(chosen, CategoricalDistribution):
            return f"{self.name}: {', '.join(word(self, value).partition('=')[2] for value in chosen.choices)}"
        assert isinstance(chosen, FloatDistribution | IntDistribution)
        steps = isinstance(chosen, FloatDistribution) or chosen.step != 1
        notes = [", log"] if chosen.log else [f", in steps of {chosen.step:g}"] if chosen.step and steps else []
        return f"{self.name}: {chosen.low:g} to {chosen.high:g}{''.join(notes)}"


def read_space(search: Mapping[str, Any], composed: Composed, options: Options) -> list[Parameter]:
    """The parameters of a search.

    Args:
        search: nested as the config is; at the end of each path {low, high, log, step} or {choices}. The choices of a
            group are a list of its options, or {option: what is to be chosen with it alone}.
        composed: gives the config in which the keys have to be.
        options: names the options of a group.

    Raises:
        ValueError: naming the key that isn't one, or the range that isn't one.
    """
    space = list(_read("", search, "", (), composed, options))
    if not space:
        raise ValueError("search has no parameter: give one as +search.<key>={low: ..., high: ...} or {choices: [...]}")
    return space


def _read(
    path: str, node: Any, option: str, words: tuple[str, ...], composed: Composed, options: Options
) -> Iterator[Parameter]:
    """The parameters below a path; `option` is the one of a group by which they are there, `words` what chose it."""
    key = f"search.{path}" if path else "search"
    if not isinstance(node, Mapping):
        raise ValueError(f"{key}={as_typed(node)}: it should be {{low, high, log, step}} or {{choices}}")
    if path.startswith(FIXED) or (path == "data" and CHOICES in node):
        raise ValueError(f"{key}: it is not to be chosen, as trials that differ in it can't be compared")
    if path and options(path):
        yield from _read_group(path, dict(node), words, composed, options)
    elif path and node.keys() & {"low", "high", CHOICES}:
        yield _read_leaf(path, dict(node), option, find(path, composed(words)))
    else:
        for name, below in node.items():
            yield from _read(f"{path}.{name}" if path else str(name), below, option, words, composed, options)


def _read_group(
    group: str, node: dict[str, Any], words: tuple[str, ...], composed: Composed, options: Options
) -> Iterator[Parameter]:
    """The choice among a group's options with what belongs to each, or else values of the option that there is."""
    choices = node.pop(CHOICES, None)
    below = {f"{group}.{name}": value for name, value in node.items()}
    if choices is None:
        for path, value in below.items():
            yield from _read(path, value, "", words, composed, options)
        return
    key = f"search.{group}.{CHOICES}"
    check_value(key, Annotated[list[str], MinLen(1)] | Annotated[dict[str, Any], MinLen(1)], choices)
    branches = {}
    for option in choices:
        if option not in options(group):
            raise ValueError(f"{key}: {group} has no option {option}{did_you_mean(option, options(group))}")
        chosen = (*words, f"{group}={option}")
        found: list[Parameter] = []
        own = choices[option] or {} if isinstance(choices, Mapping) else {}
        check_value(f"{key}.{option}", dict[str, Any], own)
        for path, value in (below | {f"{group}.{name}": value for name, value in own.items()}).items():
            found += list(_read(path, value, option, chosen, composed, options))
        composed(chosen)  # it has to be possible, with or without parameters of its own
        branches[option] = found
    yield Parameter(group, CategoricalDistribution(list(branches)), group, branches)


def _read_leaf(key: str, node: dict[str, Any], option: str, current: Any) -> Parameter:
    """The parameter of one value, which in the config is `current` now."""
    name = f"{key} ({option})" if option else key
    if "." not in key:
        raise ValueError(f"search.{key}: it is not to be chosen, as trials that differ in it can't be compared")
    if CHOICES in node:
        check_arguments(f"search.{key}", choices_fields, node)
        labels = list(dict.fromkeys(_label(choice) for choice in node[CHOICES]))
        return Parameter(key, CategoricalDistribution(labels), name)
    check_arguments(f"search.{key}", range_fields, node)
    if missing := {"low", "high"} - node.keys():
        raise ValueError(f"search.{key}.{missing.pop()}: there has to be one")
    low, high, log, step = node["low"], node["high"], node.get("log", False), node.get("step")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"search.{key}.low={low}: it should be less than search.{key}.high={high}")
    if log and low <= 0:
        raise ValueError(f"search.{key}.low={low}: it should be greater than 0 where log=true")
    if log and step is not None:
        raise ValueError(f"search.{key}.step={step}: there are no steps where log=true")
    if step is not None and step > high - low:
        raise ValueError(f"search.{key}.step={step}: it should be at most {high - low:g}, from low to high")
    whole = all(isinstance(value, int) for value in (low, high, 1 if step is None else step))
    if whole and not isinstance(current, float):
        return Parameter(key, IntDistribution(low, high, log, step or 1), name)
    return Parameter(key, FloatDistribution(low, high, log, step), name)


def range_fields(low: float, high: float, log: bool, step: Annotated[float, Gt(0)] | None) -> None:
    """What a range has."""


def choices_fields(choices: Annotated[list[Scalar | list[Scalar]], MinLen(1)]) -> None:
    """What a choice has."""


def find(key: str, config: Mapping[str, Any]) -> Any:
    """The value of a key of the config.

    Raises:
        ValueError: naming the nearest keys that there are.
    """
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            level, _, last = key.rpartition(".")
            known = list(flat(config))
            siblings = [name for name in known if name.rpartition(".")[0] == level or name.rpartition(".")[2] == last]
            near = did_you_mean(key, siblings or config)
            raise ValueError(f"search.{key}: the config has no {key}{near} (~search.{key} leaves it out)")
        node = node[part]
    if isinstance(node, Mapping):
        raise ValueError(f"search.{key}: {key} is not one value, but has {', '.join(node)}")
    return node


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its whole key."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        below = flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
        found |= below
    return found


def suggest(trial: Trial, space: Sequence[Parameter]) -> list[str]:
    """What a trial chooses, as words of a command line."""
    words = []
    for parameter in space:
        value = _draw(trial, parameter)
        words += [word(parameter, value), *suggest(trial, parameter.branches.get(str(value), ()))]
    return words


def _draw(trial: Trial, parameter: Parameter) -> Scalar:
    name, chosen = parameter.name, parameter.distribution
    if isinstance(chosen, CategoricalDistribution):
        return trial.suggest_categorical(name, chosen.choices)
    if isinstance(chosen, IntDistribution):
        return trial.suggest_int(name, chosen.low, chosen.high, step=chosen.step, log=chosen.log)
    assert isinstance(chosen, FloatDistribution)
    return trial.suggest_float(name, chosen.low, chosen.high, step=chosen.step, log=chosen.log)


def word(parameter: Parameter, value: Any) -> str:
    """A choice as it is typed."""
    return f"{parameter.key}={value if parameter.branches else as_typed(value)}"


def words_of(space: Sequence[Parameter], chosen: Mapping[str, Any]) -> list[str]:
    """The words of a trial that has been."""
    found = []
    for parameter in space:
        value = chosen[parameter.name]
        found += [word(parameter, value), *words_of(parameter.branches.get(str(value), ()), chosen)]
    return found


def present(space: Sequence[Parameter], config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the config has without any choice, by the parameters' names; None where that isn't in the space."""
    found: dict[str, Any] = {}
    for parameter in space:
        value = choices[parameter.key] if parameter.branches else _label(find(parameter.key, config))
        below = present(parameter.branches.get(str(value), ()), config, choices)
        if below is None or not _holds(parameter.distribution, value):
            return None
        found |= {parameter.name: value, **below}
    return found


def ends(space: Sequence[Parameter], words: Sequence[str] = ()) -> Iterator[tuple[Parameter, list[str]]]:
    """Words for the least and the greatest value of each parameter, or for each of its choices."""
    for parameter in space:
        chosen = parameter.distribution
        if isinstance(chosen, CategoricalDistribution):
            for value in chosen.choices:
                own = [*words, word(parameter, value)]
                yield parameter, own
                yield from ends(parameter.branches.get(str(value), ()), own)
        else:
            assert isinstance(chosen, FloatDistribution | IntDistribution)
            yield from ((parameter, [*words, word(parameter, value)]) for value in (chosen.low, chosen.high))


def leaves(space: Sequence[Parameter]) -> Iterator[Parameter]:
    """Every parameter, those of a group's options after the group."""
    for parameter in space:
        yield parameter
        for branch in parameter.branches.values():
            yield from leaves(branch)


def keys_of(space: Sequence[Parameter]) -> set[str]:
    """Every key that is chosen."""
    return {parameter.key for parameter in leaves(space)}


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float) or distribution.step not in (None, 1):
        return False
    return distribution.low <= value <= distribution.high


LIST = "list "
"""Before the text of a choice that is a list: Optuna knows single values alone."""


def _label(choice: Any) -> Scalar:
    return LIST + json.dumps(choice) if isinstance(choice, list) else choice


def as_typed(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, str) and value.startswith(LIST):
        return value.removeprefix(LIST)
    return json.dumps(value)
