"""Checks of what a run folder or a checkpoint from a stranger holds: plain values, no references, limited in size.

Each check raises a ValueError that names what it refuses.
"""

from pathlib import Path
from typing import Any

import yaml

from fmnist.config.errors import one_line
from fmnist.runs.files import read_text

MAX_CHARACTERS = 2**20  # of a config, which has some thousands
MAX_VALUES = 2**14  # on one level
MAX_DEPTH = 32  # deeper nesting may overflow the stack of a parser
PLAIN = (str, int, float, bool, type(None))
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path) -> str:
    """Return the text of a saved config, checked by `check_yaml`."""
    if file.stat().st_size > MAX_CHARACTERS:
        raise ValueError(f"it is larger than {MAX_CHARACTERS:,} bytes")
    text = read_text(file)
    check_yaml(text)
    return text


def check_yaml(text: str) -> None:
    """Check that reading a text as YAML takes little memory and stack, and looks nothing up on this machine."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_CHARACTERS:,} characters")
    depth = 0
    try:
        for event in yaml.parse(text, Loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"*{event.anchor} is a reference, which no saved config has")
            if isinstance(event, yaml.ScalarEvent):
                _check_text(event.value)
            if isinstance(event, yaml.NodeEvent) and depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("it is not a mapping")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested too deeply, in more than {MAX_DEPTH} levels")
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error


def check_plain(value: Any) -> None:
    """Check that the config in a checkpoint is a small tree of plain values that looks nothing up on this machine."""
    if not isinstance(value, dict):
        raise ValueError("it is not a mapping")
    seen: set[int] = set()
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if type(item) not in (dict, list, *PLAIN):
                raise ValueError(f"it holds a {type(item).__name__}, which no config does")
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict | list):
                if id(item) in seen:
                    raise ValueError("a part of it occurs more than once, as a reference, which no saved config has")
                seen.add(id(item))
                below += [*item, *item.values()] if isinstance(item, dict) else item
            if len(below) > MAX_VALUES:
                raise ValueError(f"it has more than {MAX_VALUES:,} values")
        level = below
    if level:
        raise ValueError(f"it is nested too deeply, in more than {MAX_DEPTH} levels")


def check_links(folder: Path) -> None:
    """Check that a folder has no symbolic link, through which a file elsewhere would be overwritten."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link: a file elsewhere would be overwritten")


def _check_text(text: str) -> None:
    if "${" in text:
        raise ValueError(f"{text[:40]!r} would be looked up on this machine; a saved config has the value itself")
