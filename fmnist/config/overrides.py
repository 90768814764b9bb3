"""The arguments of a command line in Hydra's grammar."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

FLAGS_WITH_A_VALUE = {"-cp", "-cn", "-cd", "-p", "-c", "-i"}
FLAGS_WITH_A_VALUE |= {"--config-path", "--config-name", "--config-dir", "--package", "--cfg", "--info"}


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the overrides (key=value) at the end: Hydra takes no flag after or between them."""
    flags: list[str] = []
    overrides: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_override = "=" in argument and argument[0] != "-" and before not in FLAGS_WITH_A_VALUE
        (overrides if is_override else flags).append(argument)
    return flags + overrides


def paths_as_list(key: str, arguments: list[str]) -> list[str]:
    """Return the arguments with all paths as one override, `key=[...]`, at the end.

    An argument is a path if it has no '=', or if it exists: a folder may be called optimizer=sgd,seed=0.
    """
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
    return [*rest, f"{key}=[{','.join(map(quoted, paths))}]"]


def program(command: str) -> str:
    """Return how a command is started: `python scripts/train.py` in a checkout, `fmnist train` if it is installed."""
    return f"fmnist {command}" if Path(sys.argv[0]).name == "fmnist" else f"python scripts/{command}.py"


def quoted(text: str) -> str:
    """Return a text quoted for Hydra's grammar, with quotes, the backslashes before them and `${` escaped."""
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ("\\" + found[2] if found[2] else ""), text)
    return '"' + escaped.replace("${", "\\${") + '"'


def key_of(override: str) -> str:
    """Return the key of an override, without its package (@); an empty text if there is none."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]
