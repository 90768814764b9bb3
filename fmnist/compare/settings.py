"""What was set in a run, and which of it differs between runs."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

from fmnist.runs import untrusted as trust

Settings = Mapping[str, Any]
"""Plain, hashable values by dotted key. What is null isn't there, as what an older version didn't know."""

# Keys that change neither what is learnt nor what is measured: names and places, what is shown and kept, the machine.
# All devices share each batch. Not among them: trainer.precision, limit_*_batches, and
# monitor, which chooses the checkpoint that is measured. Other data are told by their checksums instead of their place.
IGNORED = {"seed", "name", "outputs", "resume", "test", "report", "compile", "cuda_graph"}
IGNORED |= {"data.root", "data.verify", "data.eval_batch_size"}
IGNORED_OF_TRAINER = {
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "deterministic",
    "benchmark",
    "detect_anomaly",
    "profiler",
    "logger",
}
IGNORED_OF_TRAINER |= {"log_every_n_steps", "default_root_dir"}
IGNORED_OF_TRAINER |= {"enable_progress_bar", "enable_model_summary", "enable_checkpointing"}
IGNORED_GROUPS = ("pictures", "hydra")
# Their options say where a run takes place, so that each of their keys speaks for itself.
WITHOUT_CHOICE = ("trainer", "data")
DATASET = "dataset"
"""The data's own checksum, as a setting."""


def read_config(text: str) -> dict[str, Any]:
    """A config in YAML as values by dotted key.

    Its entries are parsed one by one and remembered, as thousands of runs have most of them in common.

    Raises:
        ValueError: if it doesn't hold names and values.
    """
    trust.check_length(text)
    try:
        if found := _entries(text):
            return found
    except (yaml.YAMLError, ValueError, RecursionError):
        pass  # not as OmegaConf writes it
    try:
        return dict(_flatten(_mapping(text)))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _entries(text: str) -> dict[str, Any]:
    before, *entries = re.split(r"^(?=[^\s#-])", text, flags=re.MULTILINE)
    if not all(line.startswith("#") for line in before.split("\n") if line.strip()):
        raise ValueError("it begins with something else")
    if len({entry.partition(":")[0] for entry in entries}) != len(entries):
        raise ValueError("a name stands there twice")
    found: dict[str, Any] = {}
    for entry in entries:
        found |= _entry(entry)
    return found


@lru_cache(maxsize=1 << 16)
def _entry(text: str) -> dict[str, Any]:
    if group := re.fullmatch(r"(\w+):\n((?:  .*\n)+)", text):
        inside = _entries(group[2][2:].replace("\n  ", "\n"))
        return {f"{group[1]}.{key}": value for key, value in inside.items()}
    entry = _mapping(text)
    if len(entry) != 1:
        raise ValueError("more than one entry")
    return dict(_flatten(entry))


def _mapping(text: str) -> dict[Any, Any]:
    trust.check_yaml(text)
    content = yaml.load(text, trust.Loader)  # nosec B506 (the faster of two safe ones)
    if not isinstance(content, dict) or not content:
        raise ValueError("it doesn't hold names and values")
    return content


def _flatten(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    """Hashable, and equal to itself."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value if isinstance(value, bool | int | float | str) else str(value)


def settings_of(config: Settings, dataset: Any = None) -> dict[str, Any]:
    """What of a config can make a difference.

    Args:
        config: as `read_config` gives it.
        dataset: checksum of each data file, by name.
    """
    kept = {key: value for key, value in config.items() if _counts(key)}
    if isinstance(dataset, dict) and dataset:
        kept[DATASET] = hashlib.sha256(json.dumps(dataset, sort_keys=True).encode()).hexdigest()[:8]
    return kept


@lru_cache(maxsize=1 << 14)
def _counts(key: str) -> bool:
    group, _, name = key.partition(".")
    if group in IGNORED_GROUPS or name.endswith("_partial_"):
        return False
    return key not in IGNORED and not (group == "trainer" and name in IGNORED_OF_TRAINER)


def same(key: str, value: Any) -> Any:
    """The value as something that is equal where the settings are: 1 and 1.0, but not 1 and true.

    Of the Trainer's limits 1 is one batch and 1.0 is all of them.
    """
    return (type(value), value) if isinstance(value, bool) or key.startswith("trainer.") else value


def identity(settings: Settings) -> frozenset[tuple[str, Any]]:
    """Equal for equal settings."""
    return frozenset((key, same(key, value)) for key, value in settings.items())


def columns(settings: Sequence[Settings], choices: Sequence[Mapping[str, str]]) -> dict[str, list[Any]]:
    """The settings that differ: for each a column with a value for each of the N; None where it isn't set.

    Of a group whose choice differs (optimizer=sgd, optimizer=adam) the choice is a column. A key below it is one only
    where it differs between those with the same choice: all else the choice has brought with it.

    Args:
        settings: N of them.
        choices: option by group of each; where one isn't known, the group's `_target_` is taken.
    """
    keys = list(dict.fromkeys(key for each in settings for key in each))
    values = {key: [each.get(key) for each in settings] for key in keys}
    differing = [key for key in keys if _differ(key, values[key])]
    found: dict[str, list[Any]] = {}
    for group in dict.fromkeys(key.partition(".")[0] for key in differing):
        own = [key for key in differing if key.partition(".")[0] == group]
        labels = None if group in WITHOUT_CHOICE or own == [group] else _labels(group, settings, choices)
        if labels is None or len(set(labels)) < 2:
            found |= {key: values[key] for key in own}
            continue
        found[group] = labels
        alike = [[i for i, label in enumerate(labels) if label == one] for one in dict.fromkeys(labels)]
        for key in own:
            if any(_differ(key, [values[key][i] for i in members]) for members in alike):
                found[key] = values[key]
    return found


def _differ(key: str, values: Iterable[Any]) -> bool:
    return len({same(key, value) for value in values}) > 1


def _labels(group: str, settings: Sequence[Settings], choices: Sequence[Mapping[str, str]]) -> list[str | None] | None:
    """What each has taken of a group; None for those without it. None at all where it has no options."""
    present = [any(key.startswith(f"{group}.") for key in each) for each in settings]
    chosen = [each.get(group) for each in choices]
    targets = [each.get(f"{group}._target_") for each in settings]
    for labels in (chosen, targets):
        if all(isinstance(label, str) or not there for label, there in zip(labels, present, strict=True)):
            return labels if labels is chosen else [label and str(label).rpartition(".")[2] for label in labels]
    return None
