"""The trackers of the config, besides TensorBoard; they must not have keys or addresses there."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fmnist.config.instantiate import build, find_target, plain_config
from fmnist.config.overrides import PASSWORD, SECRET, VARIABLES
from fmnist.runs.run import Run
from fmnist.training.loggers import TrackerLogger
from fmnist.training.trackers import Tracker

REMOTE_PATIENCE, LOCAL_PATIENCE = 10.0, 120.0
"""Seconds without an answer after which a run ends without its tracker; a file on a slow disk gets more."""
ADDRESS = re.compile(r"ur[il]$|host|server|endpoint", re.IGNORECASE)


def build_trackers(cfg: DictConfig, run: Run, first_step: int | None) -> list[Tracker]:
    """Build the trackers of the config. Nothing is contacted before something is logged.

    Raises:
        ValueError: naming the key that isn't allowed, or the package that is missing.
    """
    nodes = cfg.get("logger")  # older runs haven't got it
    if nodes is None:
        return []
    if not isinstance(nodes, DictConfig):
        raise ValueError(f"logger={nodes}: must be a choice of conf/logger/, or several: 'logger=[wandb,mlflow]'")
    outputs = Path(cfg.outputs).absolute()
    return [build_tracker(str(name), node, run, outputs, first_step) for name, node in nodes.items()]


def build_tracker(name: str, node: DictConfig, run: Run, outputs: Path, first_step: int | None) -> Tracker:
    """Build one tracker; arguments and errors as for `build_trackers`."""
    key = f"logger.{name}"
    if not isinstance(node, DictConfig):
        raise ValueError(f"{key}={node}: must have a _target_ and arguments")
    arguments = plain_config(node)
    check_secrets(key, arguments)
    if found := [argument for argument in arguments if ADDRESS.search(argument)]:
        raise ValueError(f"{key}.{found[0]}: must not be given: {VARIABLES}")
    if "place" in arguments:
        raise ValueError(f"{key}.place: cannot be set")
    target = find_target(key, str(arguments.pop("_target_", None)), TrackerLogger)
    assert isinstance(target, type)
    assert issubclass(target, TrackerLogger)
    target.check_package(key)
    partial = OmegaConf.create({**arguments, "_target_": node._target_, "_partial_": True})
    make = build(key, partial, TrackerLogger, partly=True)
    try:
        local = target.is_local(**arguments)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    patience = LOCAL_PATIENCE if local else REMOTE_PATIENCE
    return Tracker(name, make, target.package, run, outputs, first_step, patience)


def check_secrets(key: str, value: Any) -> None:
    """Refuse keys and passwords, which config.yaml would keep; the value isn't shown.

    Raises:
        ValueError: naming the key.
    """
    if isinstance(value, str) and PASSWORD.search(value):
        raise ValueError(f"{key}: must not hold a password, as the run folder would keep it: {VARIABLES}")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        if isinstance(name, str) and SECRET.search(name):
            raise ValueError(f"{key}.{name}: must not be given, as the run folder would keep it: {VARIABLES}")
        check_secrets(f"{key}.{name}", below)
