"""One node of the config as an object, of a kind that is allowed there."""

import functools
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from fmnist.config.errors import one_line
from fmnist.config.validation import check_arguments

ALLOWED_TARGETS = ("fmnist.", "torch.nn.", "torch.optim.", "lightning.pytorch.", "optuna.samplers.", "optuna.pruners.")
"""The packages of a `_target_`."""
REFUSALS = (ValueError, TypeError, ImportError, RuntimeError, OverflowError, MemoryError, MisconfigurationException)
"""The errors with which classes refuse arguments."""


def build(
    key: str,
    node: DictConfig,
    kind: type | ModuleType,
    *,
    partly: bool = False,
    offered: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Any:
    """Return the `_target_` of a node of the config, called with the node's other keys.

    Args:
        key: of the node in the config, for messages.
        kind: the class that the target is or descends from, or the module of which it is a function. A config from a
            stranger builds nothing else.
        partly: whether the node has to be `_partial_`, a function to be called later with more arguments.
        offered: arguments that the user can't set, for targets that take them.
        extra: arguments that the user can't set.

    Raises:
        ValueError: if the target is of another kind, an argument doesn't exist or has a `_target_` of its own, or its
            value isn't allowed.
    """
    if not isinstance(node, DictConfig):
        raise ValueError(f"{key}={node}: must have a _target_ and arguments")
    arguments = plain_config(node)
    target = find_target(key, str(arguments.pop("_target_", None)), kind)
    partial = bool(arguments.pop("_partial_", False))
    taken = inspect.signature(target).parameters
    extra |= {name: value for name, value in (offered or {}).items() if name in taken}
    if fixed := sorted(extra.keys() & arguments.keys()):
        raise ValueError(f"{key}.{fixed[0]}: cannot be set")
    if partly != partial:
        raise ValueError(f"{key}._partial_={json.dumps(partial)}: must be {json.dumps(partly)}")
    if nested := next(targets_below(key, arguments), None):
        raise ValueError(f"{nested}: arguments are plain values; only {key} itself has a _target_")
    check_arguments(key, target, arguments)
    # Not by Hydra's `instantiate`: its partial functions check the target at each call, for 0.4 ms, and a schedule is
    # called in each training step.
    if partial:
        return functools.partial(target, **arguments, **extra)
    try:
        return target(**arguments, **extra)
    except REFUSALS as error:
        reason = one_line(error)
        starts_with_argument = reason.partition("=")[0] in arguments
        raise ValueError(f"{key}{'.' if starts_with_argument else ': '}{reason}") from error


def find_target(key: str, name: str, kind: type | ModuleType) -> Callable[..., Any]:
    """Return the class or function with the name, if it is of the kind; arguments and errors as for `build`."""
    if not name.startswith(ALLOWED_TARGETS):
        raise ValueError(f"{key}._target_={name}: must start with one of {', '.join(ALLOWED_TARGETS)}")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}._target_={name}: {one_line(error)}") from error
    if isinstance(kind, ModuleType):
        fits = inspect.isfunction(target) and target.__module__ == kind.__name__
        allowed = f"a function of {kind.__name__}"
    else:
        fits = inspect.isclass(target) and issubclass(target, kind)
        allowed = f"a class that descends from {kind.__name__}"
    if not fits:
        raise ValueError(f"{key}._target_={name}: must be {allowed}")
    found: Callable[..., Any] = target
    return found


def targets_below(key: str, value: Any) -> Iterator[str]:
    """Yield the key of each `_target_` in a value, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        if name == "_target_":
            yield f"{key}.{name}={below}"
        yield from targets_below(f"{key}.{name}", below)


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved config as Python's own dicts and lists."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}
