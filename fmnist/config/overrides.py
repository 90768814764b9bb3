"""The arguments of a command line in Hydra's grammar."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

FLAGS_WITH_A_VALUE = {"-cp", "-cn", "-cd", "-p", "-c", "-i"}
INFO = {"-i", "--info"}
FLAGS_WITH_A_VALUE |= {"--config-path", "--config-name", "--config-dir", "--package", "--cfg", "--info"}

SECRET = re.compile(r"(?i:api_?key|token|passw(?:or)?d|secret|credential)s?")
"""Names of arguments that a run folder must not hold."""
PASSWORD = re.compile(r"://[^/\s]*@")
"""In an address."""
VARIABLES = "set WANDB_API_KEY, COMET_API_KEY or MLFLOW_TRACKING_URI in the environment (docs/trackers.md)"


def check_secrets(overrides: Sequence[str]) -> None:
    """Refuse keys and passwords of trackers before anything is written: records hold what was typed.

    Raises:
        ValueError: naming the key; the value isn't shown.
    """
    for override in overrides:
        secret = re.search(rf"{SECRET.pattern}\w*\s*[=:]", override) or PASSWORD.search(override)
        if secret and key_of(override).split(".")[0] == "logger":
            raise ValueError(f"{key_of(override)}: must not be given, as the run folder would keep it: {VARIABLES}")


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the overrides (key=value) at the end: Hydra takes no flag after or between them."""
    flags: list[str] = []
    overrides: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_override = "=" in argument and argument[0] != "-" and before not in FLAGS_WITH_A_VALUE - INFO
        (overrides if is_override else flags).append(argument)
    # Without a value it would take the first override for one.
    return [*flags[:-1], "--info=all", *overrides] if flags[-1:] and flags[-1] in INFO else flags + overrides


def paths_as_value(key: str | None, arguments: list[str]) -> list[str]:
    """Return the arguments with paths quoted for Hydra's grammar, and the plain ones as one override at the end.

    A value that has special characters is a path if it exists. A plain argument is one if it has no '=', or if it
    exists: a folder may be called optimizer=sgd,seed=0.

    Args:
        key: of the override: key=path for one plain path, key=[...] for several. None takes none.

    Raises:
        ValueError: if the key is given, too.
    """
    arguments = [quoted_path(argument) for argument in arguments]
    if key is None:
        return arguments
    rest: list[str] = []
    paths: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_flag = argument.startswith("-") or before in FLAGS_WITH_A_VALUE
        may_be_override = "=" in argument or argument.startswith("~") or not argument
        is_path = not is_flag and (not may_be_override or os.path.exists(argument))  # noqa: PTH110 (any length)
        (paths if is_path else rest).append(argument)
    if not paths:
        return rest
    if any(argument.startswith(f"{key}=") for argument in rest):
        raise ValueError(f"{key}=...: give either that or paths, not both")
    listed = ",".join(map(quoted, paths))
    return [*rest, f"{key}={listed}" if len(paths) == 1 else f"{key}=[{listed}]"]


def quoted_path(argument: str) -> str:
    """Return key=value with a path in Hydra's quotes: one that exists, or begins with `~/`; all else as it is."""
    key, equals, value = argument.partition("=")
    if key[:1] == "-" or not equals or os.path.exists(argument):  # noqa: PTH110 (any length)
        return argument
    if os.path.exists(value) and not re.fullmatch(r"[\w/.+-]*", value):  # noqa: PTH110
        return f"{key}={quoted(value)}"
    return f"{key}=" + re.sub(r"(?<![^\[,])~/[^,\]]*", lambda path: quoted(path[0]), value)


def expand_home(cfg: DictConfig) -> None:
    """Replace `~/` at the beginning of a value of the config by the home folder."""
    for key, path in home_paths(OmegaConf.to_container(cfg)):
        OmegaConf.update(cfg, key, str(Path(path).expanduser()))


def home_paths(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of each value that begins with `~/`."""
    if isinstance(value, str) and value.startswith("~/"):
        yield key, value
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from home_paths(item, f"{key}.{name}" if key else str(name))


def program(command: str) -> str:
    """Return how a command is started: `python scripts/train.py` in a checkout, `fmnist train` if it is installed."""
    installed = Path(sys.argv[0]).stem == "fmnist"
    return f"fmnist {command.replace('_', '-')}" if installed else f"python scripts/{command}.py"


def quoted(text: str) -> str:
    """Return a text quoted for Hydra's grammar, with quotes, the backslashes before them and `${` escaped."""
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ("\\" + found[2] if found[2] else ""), text)
    return '"' + escaped.replace("${", "\\${") + '"'


def shell_argument(key: str, path: object) -> str:
    """Return key=path, quoted for Hydra's grammar and for the shell."""
    name = str(path)
    if not re.fullmatch(r"[\w/.+-]+", name, re.ASCII):
        name = quoted(name)
    return shlex.quote(f"{key}={name}")


def key_of(override: str) -> str:
    """Return the key of an override, without its package (@); an empty text if there is none."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]
