"""The classes and functions that configs of older runs name, by their present names. No torch."""

from typing import Any

MOVED = {
    "fmnist.callbacks.": "fmnist.training.callbacks.",
    "fmnist.losses.": "fmnist.training.losses.",
    "fmnist.optimizers.": "fmnist.training.optimizers.",
    "fmnist.schedules.": "fmnist.training.schedules.",
}
"""New prefix of a `_target_` by old prefix. Add a line when a module moves that a config can name."""
DATA_MODULE = "fmnist.data.datamodule.FashionMNISTDataModule"
"""The target of the node `data` of older runs, which knew one dataset."""


def current_target(target: str) -> str:
    """Return the present name of what a `_target_` names."""
    for old, new in MOVED.items():
        if target.startswith(old):
            return new + target.removeprefix(old)
    return target


def update_targets(config: Any) -> Any:
    """Return a copy of a saved config in which each `_target_` has its present name.

    Args:
        config: plain values, which `fmnist.runs.untrusted` has checked.
    """
    if isinstance(config, dict) and config.get("_target_") == DATA_MODULE:
        from fmnist.data.datasets.fashion_mnist import node_of_older_version  # which imports torch

        config = node_of_older_version(config)
    if isinstance(config, dict):
        return {
            key: current_target(value) if key == "_target_" and isinstance(value, str) else update_targets(value)
            for key, value in config.items()
        }
    return [update_targets(value) for value in config] if isinstance(config, list) else config


def update_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a config by dotted key, as run.json holds it, in which each `_target_` has its present name."""
    prefix = "data."
    data = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    others = {key: value for key, value in settings.items() if not key.startswith(prefix)}
    others = {key: current_target(value) if key.endswith("._target_") else value for key, value in others.items()}
    return others | {f"{prefix}{key}": value for key, value in update_targets(data).items()}
