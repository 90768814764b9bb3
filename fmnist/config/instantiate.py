"""One node of the config as one object, of a kind that is allowed there."""

import functools
import inspect
import json
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from fmnist.config.validation import check_arguments

ALLOWED_TARGETS = ("fmnist.", "torch.nn.", "torch.optim.", "lightning.pytorch.", "optuna.samplers.", "optuna.pruners.")
"""Where a `_target_` may point."""
USER_ERRORS = (ValueError, TypeError, ImportError, RuntimeError, OverflowError, MemoryError, MisconfigurationException)
"""With which a class refuses arguments."""


def build(key: str, node: DictConfig, kind: type | ModuleType, *, partly: bool | None = False, **extra: Any) -> Any:
    """What a node of the config describes: its `_target_`, called with its other keys.

    Args:
        key: where the node stands in the config.
        node: `_target_`, `_partial_` and arguments.
        kind: the class that the target is or descends from, or the module of which it is a function: a config from a
            stranger builds nothing else.
        partly: whether it is called later, with more arguments (`_partial_`); None leaves the choice to the config.
        extra: arguments that aren't the person's to choose.

    Raises:
        ValueError: if the target is of another kind, an argument doesn't exist, or its value isn't allowed.
    """
    if not isinstance(node, DictConfig):
        raise ValueError(f"{key}={node}: it should have a _target_ and arguments")
    arguments = plain_config(node)
    target = find_target(key, str(arguments.pop("_target_", None)), kind)
    partial = bool(arguments.pop("_partial_", False))
    if fixed := sorted(extra.keys() & arguments.keys()):
        raise ValueError(f"{key}.{fixed[0]} is not to be chosen")
    if partly not in (None, partial):
        raise ValueError(f"{key}._partial_={json.dumps(partial)}: it should be {json.dumps(partly)}")
    check_arguments(key, target, arguments)
    # Not by Hydra's `instantiate`: what it makes of `_partial_` checks the target again at each call, for 0.4 ms, and
    # a schedule is called in each training step.
    if partial:
        return functools.partial(target, **arguments, **extra)
    try:
        return target(**arguments, **extra)
    except USER_ERRORS as error:
        raise ValueError(f"{key}: {one_line(error)}") from error


def find_target(key: str, name: str, kind: type | ModuleType) -> Callable[..., Any]:
    """The class or function that `_target_` names, if it is of the kind that belongs there."""
    if not name.startswith(ALLOWED_TARGETS):
        raise ValueError(f"{key}._target_={name}: it should start with one of {', '.join(ALLOWED_TARGETS)}")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}._target_={name}: {one_line(error)}") from error
    if isinstance(kind, ModuleType):
        fits = inspect.isfunction(target) and target.__module__ == kind.__name__
    else:
        fits = inspect.isclass(target) and issubclass(target, kind)
    if not fits:
        raise ValueError(f"{key}._target_={name}: it should be of {kind.__name__}")
    found: Callable[..., Any] = target
    return found


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config without anything of OmegaConf's."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def one_line(error: BaseException) -> str:
    """The first paragraph of an error's message, on one line."""
    return " ".join(str(error).strip().split("\n\n")[0].split())
