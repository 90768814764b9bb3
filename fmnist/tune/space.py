"""The search space of a study: read from the config's `search`, checked, and drawn from by each trial."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, MinLen
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState, create_trial

from fmnist.config.keys import affects_result
from fmnist.config.validation import check_arguments, check_value, did_you_mean

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Scalar = bool | int | float | str | None
Compose = Callable[[tuple[str, ...]], Mapping[str, Any]]
"""Returns the config, as plain values, that some more overrides give."""
Options = Callable[[str], Sequence[str]]
"""Returns the options of a config group; none for a key that isn't a group."""

MEASURED_ON = ("monitor", "data", "data.val_size", "data.split_seed", "trainer.limit_val_batches")
"""Keys that decide on which images and by which metric a trial is measured."""


@dataclass(frozen=True)
class Parameter:
    """One value of the config, or the option of a config group, that a trial chooses."""

    key: str
    """The key in the config, as it is typed."""
    distribution: Distribution
    option: str = ""
    """The choice that it belongs to, as `optimizer=sgd`; empty if every trial has it."""
    is_group: bool = False

    @property
    def name(self) -> str:
        """The name in the study."""
        return f"{self.key} ({self.option.partition('=')[2]})" if self.option else self.key

    @property
    def ends(self) -> Sequence[Any]:
        """All choices, or the lowest and the highest value."""
        allowed = self.distribution
        return allowed.choices if isinstance(allowed, CategoricalDistribution) else (allowed.low, allowed.high)

    def override(self, value: Any) -> str:
        """Return a value as an override."""
        return f"{self.key}={value if self.is_group else typed(value)}"

    def __str__(self) -> str:
        """Return name and range for people."""
        allowed = self.distribution
        if isinstance(allowed, CategoricalDistribution):
            return f"{self.name}: {', '.join(self.override(value).partition('=')[2] for value in allowed.choices)}"
        notes = ", log" if allowed.log else f", step {allowed.step:g}" if allowed.step not in (None, 1) else ""
        return f"{self.name}: {allowed.low:g} to {allowed.high:g}{notes}"


Space = Sequence[Parameter]
"""The parameters in the order of their choice: a group is before the parameters of its options."""


@dataclass
class Range:
    """The keys of a numeric range."""

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Gt(0)] | None = None


@dataclass
class Choices:
    """The key of a list of values."""

    choices: Annotated[list[Scalar | list[Scalar]], MinLen(1)]


def read_space(search: Mapping[str, Any], compose: Compose, options: Options) -> Space:
    """Return the parameters of a search space.

    Args:
        search: nested like the config. At the end of each path is {low, high, log, step} or {choices}. The choices of a
            group are a list of its options, or {option: parameters that belong to this option}.

    Raises:
        ValueError: naming the key that doesn't exist or the range that isn't valid.
    """
    space = list(_read("", search, "", compose, options))
    if not space:
        raise ValueError("search has no parameter: give one as +search.<key>={low: ..., high: ...} or {choices: [...]}")
    return space


def _read(path: str, node: Any, option: str, compose: Compose, options: Options) -> Iterator[Parameter]:
    if not isinstance(node, Mapping):
        key = f"search.{path}" if path else "search"
        raise ValueError(f"{key}={typed(node)}: must be {{low, high, log, step}} or {{choices}}")
    if path and options(path) and "choices" in node:
        yield from _read_group(path, dict(node), compose, options)
    elif path and not options(path) and node.keys() & {"low", "high", "choices"}:
        config = flat(compose((option,) if option else ()))
        check_searchable(path, config)
        yield Parameter(path, read_distribution(f"search.{path}", node, config[path]), option)
    else:
        for name, child in node.items():
            yield from _read(f"{path}.{name}" if path else str(name), child, option, compose, options)


def _read_group(group: str, node: dict[str, Any], compose: Compose, options: Options) -> Iterator[Parameter]:
    key, choices = f"search.{group}.choices", node.pop("choices")
    check_searchable(group, [group])
    check_value(key, Annotated[list[str], MinLen(1)] | Annotated[dict[str, Any], MinLen(1)], choices)
    for option in choices:
        if option not in options(group):
            raise ValueError(f"{key}: {group} has no option {option}{did_you_mean(option, options(group))}")
    yield Parameter(group, CategoricalDistribution(list(choices)), is_group=True)
    for option in choices:
        own = choices[option] or {} if isinstance(choices, Mapping) else {}
        check_value(f"{key}.{option}", dict[str, Any], own)
        compose((f"{group}={option}",))  # raises if the option can't be combined with the rest
        yield from _read(group, node | own, f"{group}={option}", compose, options)


def read_distribution(key: str, node: Mapping[str, Any], current: Any) -> Distribution:
    """Return a range or a list of choices for a value that is `current` in the config."""
    if "choices" in node:
        check_arguments(key, Choices, node)
        return CategoricalDistribution(list(dict.fromkeys(label(choice) for choice in node["choices"])))
    check_arguments(key, Range, node)
    if missing := [end for end in ("low", "high") if end not in node]:
        raise ValueError(f"{key}.{missing[0]}: the key is required")
    given = Range(**node)
    if given.low >= given.high:
        raise ValueError(f"{key}.low={given.low}: must be less than {key}.high={given.high}")
    if given.step is not None and given.step > given.high - given.low:
        raise ValueError(f"{key}.step={given.step}: must be at most {given.high - given.low:g}, from low to high")
    if given.log and given.low <= 0:
        raise ValueError(f"{key}.low={given.low}: must be greater than 0 with log=true")
    if given.log and given.step is not None:
        raise ValueError(f"{key}.step={given.step}: isn't allowed with log=true")
    low, high, step = given.low, given.high, given.step
    if all(isinstance(number, int) for number in (low, high, step or 1)) and not isinstance(current, float):
        return IntDistribution(int(low), int(high), given.log, int(step or 1))
    return FloatDistribution(low, high, given.log, step)


def check_searchable(key: str, known: Mapping[str, Any] | Sequence[str]) -> None:
    """Raise a ValueError if a key doesn't exist, or if trials that differ in it can't be compared."""
    if key not in known:
        level, _, last = key.rpartition(".")
        near = [name for name in known if name.rpartition(".")[0] == level or name.rpartition(".")[2] == last]
        hint = did_you_mean(key, near or {name.partition(".")[0] for name in known})
        raise ValueError(f"search.{key}: the config has no value {key}{hint} (~search.{key} removes it)")
    if key in MEASURED_ON or not affects_result(key):
        raise ValueError(f"search.{key}: can't be searched, as trials that differ in it can't be compared")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested config by their dotted keys."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        values |= flat(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return values


def choose(space: Space, value_of: Callable[[Parameter], Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the parameters that belong to a trial, by their names and as overrides."""
    values: dict[str, Any] = {}
    overrides: list[str] = []
    for parameter in space:
        if not parameter.option or parameter.option in overrides:
            values[parameter.name] = value_of(parameter)
            overrides.append(parameter.override(values[parameter.name]))
    return values, overrides


def suggest(trial: Trial, space: Space) -> list[str]:
    """Return the values that a trial chooses, as overrides."""

    def draw(parameter: Parameter) -> Any:
        name, allowed = parameter.name, parameter.distribution
        if isinstance(allowed, CategoricalDistribution):
            return trial.suggest_categorical(name, allowed.choices)
        if isinstance(allowed, IntDistribution):
            return trial.suggest_int(name, allowed.low, allowed.high, step=allowed.step, log=allowed.log)
        return trial.suggest_float(name, allowed.low, allowed.high, step=allowed.step, log=allowed.log)

    return choose(space, draw)[1]


def overrides_of(space: Space, params: Mapping[str, Any]) -> list[str]:
    """Return the values that a trial had, as overrides."""
    return choose(space, lambda parameter: params[parameter.name])[1]


def base_params(space: Space, config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the values of the base setting by the parameters' names; None if it is outside of the space.

    Args:
        config: without any trial's choice.
        choices: its option of each group.
    """
    current = {key: label(value) for key, value in flat(config).items()} | dict(choices)
    params, _ = choose(space, lambda parameter: current[parameter.key])
    distributions: dict[str, BaseDistribution] = {p.name: p.distribution for p in space if p.name in params}
    try:
        create_trial(state=TrialState.WAITING, params=params, distributions=distributions)
    except ValueError:
        return None
    return params


def label(choice: Any) -> bool | int | float | str:
    """Return a choice as Optuna stores it: a list and null as JSON text, any other value as it is."""
    return choice if isinstance(choice, bool | int | float | str) else json.dumps(choice)


def typed(value: Any) -> str:
    """Return a value, or the label of one, as it is typed in an override."""
    is_label = isinstance(value, str) and (value == "null" or value.startswith("["))
    return value if is_label else json.dumps(value)
