"""What a run folder or a checkpoint from a stranger may hold: plain values, each written out, and not without end."""

from pathlib import Path
from typing import Any

import yaml

MOST_CHARACTERS = 2**20  # of a config, which has some thousands
MOST_VALUES = 2**14
DEEPEST = 32  # levels, beyond which a parser may use up its stack
PLAIN = (str, int, float, bool, type(None))
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path) -> str:
    """The text of a config that was saved resolved.

    Raises:
        ValueError: if it is none, see `check_yaml`.
        OSError: if it can't be read.
    """
    if file.stat().st_size > MOST_CHARACTERS:
        raise ValueError(f"it is larger than {MOST_CHARACTERS:,} bytes")
    text = file.read_text(encoding="utf-8")
    check_yaml(text)
    return text


def check_yaml(text: str) -> None:
    """Refuses what would take its reader's memory or stack, or be replaced by something of this machine's.

    Raises:
        ValueError: saying what stands there, or that it is no YAML.
    """
    check_length(text)
    depth = 0
    try:
        for event in yaml.parse(text, Loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"*{event.anchor} repeats what stands elsewhere; a saved config has everything once")
            if isinstance(event, yaml.ScalarEvent):
                _check_text(event.value)
            if isinstance(event, yaml.NodeEvent) and depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("it doesn't hold names and values")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"it is nested too deeply, in more than {DEEPEST} levels")
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def check_length(text: str) -> None:
    """Refuses what no config is as long as.

    Raises:
        ValueError: saying so.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it is longer than {MOST_CHARACTERS:,} characters")


def check_plain(value: Any) -> None:
    """The same for a config that is no text any more.

    Raises:
        ValueError: saying what isn't plain in it.
    """
    if not isinstance(value, dict):
        raise ValueError("it doesn't hold names and values")
    seen: set[int] = set()
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if type(item) not in (dict, list, *PLAIN):
                raise ValueError(f"{type(item).__name__} is nothing that a config holds")
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict | list):
                if id(item) in seen:
                    raise ValueError("a part of it stands in several places; a saved config has everything once")
                seen.add(id(item))
                below += [*item, *item.values()] if isinstance(item, dict) else item
            if len(below) > MOST_VALUES:
                raise ValueError(f"it has more than {MOST_VALUES:,} values")
        level = below
    if level:
        raise ValueError(f"it is nested too deeply, in more than {DEEPEST} levels")


def check_links(folder: Path) -> None:
    """Refuses a folder in which a file that is written might be one elsewhere.

    Raises:
        ValueError: naming the first.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link: what is written there would land elsewhere")


def _check_text(text: str) -> None:
    if "${" in text:
        raise ValueError(f"{text[:40]!r} would be looked up here; a saved config has the value itself")
