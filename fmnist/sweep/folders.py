"""Where a sweep and its jobs lie: folders named by what differs, so that the same job finds its folder again."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from fmnist.config.keys import affects_result, flat_settings
from fmnist.runs.run import Run
from fmnist.sweep.overrides import SweepOverrides

MAX_NAME = 120  # bytes; a file system allows 255, and the names are read in tables
UNNAMED = frozenset({"sweep", "name", "outputs", "logger"})
"""Keys that say where and how the jobs run, not what they compute."""


def sweep_name(overrides: SweepOverrides) -> str:
    """Return the folder name of a training sweep: the keys that are swept, and a hash of the fixed overrides.

    The same grid with more or fewer values has the same name. Its characters need no quotes in an override.
    """
    fixed = sorted(text for key, text in overrides.fixed.items() if key not in UNNAMED)
    keys = "+".join(sorted(overrides.swept)) if overrides.swept else "one"
    name = re.sub(r"[^\w.+-]", "-", f"sweep_{keys}", flags=re.ASCII)
    return _shortened(f"{name}_{_hash(fixed)}" if fixed else name)


def job_name(overrides: Iterable[str]) -> str:
    """Return the folder name of a job: its overrides, sorted, in characters that no shell minds."""

    def part(override: str) -> str:
        key, _, value = override.partition("=")
        value = re.sub(r"[^\w.+-]", "-", re.sub(r"[\[\](){}'\"\s]", "", value))
        return f"{key.lstrip('+~')}={value}"

    return _shortened(re.sub(r"[^\w.=,+-]", "-", ",".join(sorted(map(part, overrides)))) or "defaults")


def belongs(run: Run, config: Mapping[str, Any], overrides: Iterable[str]) -> bool:
    """Return whether the folder is empty so far, or holds a run of the same job with the same settings."""
    if not run.config_file.is_file():
        return True
    try:
        recorded: Any = OmegaConf.to_container(run.load_config(), resolve=True)
    except ValueError:  # a damaged file
        return False
    if not same_settings(recorded, config):
        return False
    try:
        known = run.load_record().get("overrides", overrides)
    except ValueError:
        return True  # the job says that its record is damaged
    return set(overrides) <= set(known)  # not of another job whose name has the same characters


def same_settings(recorded: Mapping[str, Any], composed: Mapping[str, Any]) -> bool:
    """Return whether two configs have the same seed, and the same value for each key that affects the result.

    Args:
        recorded: the config in a run folder.
        composed: the config of a job. Its trainer.precision=auto is the same as whatever the run has made of it.
    """
    first, second = flat_settings(recorded), flat_settings(composed)
    if second.get("trainer.precision") == "auto":
        second["trainer.precision"] = first.get("trainer.precision")
    keys = (key for key in first.keys() | second.keys() if key == "seed" or affects_result(key))
    return all(repr(first.get(key)) == repr(second.get(key)) for key in keys)  # 1 batch is not 1.0 of the batches


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name.encode()[: MAX_NAME - 9].decode(errors='ignore')}_{_hash([name])}"


def _hash(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
