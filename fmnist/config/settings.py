"""The keys of a command as one typed object."""

import dataclasses
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf

from fmnist.config.validation import check_arguments

T = TypeVar("T")


def read_settings(schema: type[T], cfg: DictConfig) -> T:
    """Return the keys of a command's config that belong to no group, checked against their annotations.

    Args:
        schema: a dataclass with a field for each key.
        cfg: the composed config; what is a group in it, and no field, is left out.

    Raises:
        ValueError: naming the key that is missing or unknown, or whose value isn't allowed.
    """
    fields = {field.name for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    values = {
        str(key): OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in cfg.items()
        if key in fields or not isinstance(value, DictConfig)
    }
    check_arguments("", schema, values)
    required = [field.name for field in dataclasses.fields(schema) if field.default is dataclasses.MISSING]  # type: ignore[arg-type]
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{missing[0]}: is required")
    return schema(**values)
