"""Write docs/reference.md: every command, option and key, with its default and comment, as conf/ has them.

python tools/reference.py
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # `tools` isn't installed

from fmnist.config.command_line import COMMANDS  # noqa: E402
from fmnist.config.keys import can_change_on_resume  # noqa: E402
from fmnist.config.option_files import (  # noqa: E402
    Key,
    choices,
    command_keys,
    command_texts,
    examples,
    group_comments,
    groups,
    headline,
    option_keys,
    option_text,
    options,
)

SETS = ("experiment", "sweep")
"""Groups whose options set the keys of other groups."""
PAGE = ROOT / "docs" / "reference.md"
INTRODUCTION = """\
# Every key

Written from the files of `conf/` by `python tools/reference.py`. `python scripts/train.py --help` shows the same,
`--help <key or group>` one part of it, and `--cfg job` the whole config of a command.

A key is set as `key=value`, an option of a group is chosen as `group=option`. `+key=value` adds a key that the config
doesn't have, such as another argument of Lightning's Trainer. ✓ marks the keys that can change when a run is
[resumed](resuming.md)."""


def reference() -> str:
    """Return the text of the page."""
    lines = [INTRODUCTION, "", "## Commands"]
    for command in sorted(COMMANDS, key=lambda name: (name != "train", name)):
        lines += ["", *command_section(command)]
    lines += ["", "## Groups"]
    for group in [*groups("train"), *(name for name in groups("tune") if name not in groups("train"))]:
        lines += ["", *group_section(group)]
    return "\n".join(lines) + "\n"


def command_section(command: str) -> Iterator[str]:
    """Yield the lines on a command: what it does, examples, and its own keys."""
    text = command_texts(command)[0]
    yield f"### {command}"
    yield ""
    yield headline(text)
    if shown := examples(text):
        yield ""
        yield from (f"    {line}" for line in shown)
    own = command_keys(command)
    if re.search("^  - train$", text, re.MULTILINE):
        own = {key: line for key, line in own.items() if command_keys("train").get(key) != line}
        yield from ("", "The other keys of `train`, and the groups, are keys of this command, too.")
    yield from table(own, "", resumable=command == "train")


def group_section(group: str) -> Iterator[str]:
    """Yield the lines on a group: each option, and its keys unless they are those of the option that it builds on."""
    command = "train" if group in groups("train") else "tune"
    default, comment = choices(command).get(group), group_comments(command).get(group)
    yield f"### {group}"
    if comment:
        yield ""
        yield comment[:1].upper() + comment[1:] + "."
    bare = []
    for option in sorted(options(group), key=lambda name: (name != default, name)):
        text = option_text(group, option)
        base, keys = own_keys(group, option)
        sentence = f"**`{group}={option}`**{' (default)' if option == default else ''}: {prose(headline(text))}."
        if group in SETS:
            bare.append(f"- {sentence}{settings(group, option)}")
        elif not keys:
            bare.append(f"- {sentence}")
        else:
            note = f" As `{group}={base}`, but for:" if base else ""
            yield from ("", sentence + note, *table(keys, f"{group}.", resumable=command == "train"))
    if bare:
        yield from ("", *bare)


def own_keys(group: str, option: str) -> tuple[str | None, dict[str, Key]]:
    """Return the option that an option builds on, None if there is none, and the keys that differ from it."""
    bases = re.findall(r"^  - (\w+)$", option_text(group, option), re.MULTILINE)
    base = next((name for name in bases if name in options(group)), None)
    known = option_keys(group, base) if base else {}
    return base, {key: line for key, line in option_keys(group, option).items() if known.get(key) != line}


def settings(group: str, option: str) -> str:
    """Return the lines on what an experiment sets; nothing for a sweep."""
    if group != "experiment":
        return ""
    base, keys = own_keys(group, option)
    chosen = dict(re.findall(r"^  - override /(\w+): (\w+)", option_text(group, option), re.MULTILINE))
    values = {key: line.value.replace(", ", ",") for key, line in keys.items() if key != "name"}
    listed = " ".join(f"{key}={value}" for key, value in (chosen | values).items())
    return f"\n  {f'As `{base}`, and ' if base else ''}`{listed}`"


def table(keys: Mapping[str, Key], prefix: str, *, resumable: bool) -> Iterator[str]:
    """Yield a table of keys, after an empty line; nothing where there are none.

    Args:
        prefix: what stands before each key.
        resumable: whether a column says which keys can change when a run is resumed.
    """
    if not keys:
        return
    last = " ✓ |" if resumable else ""
    yield from ("", f"| key | default | what it is |{last}", "|---|---|---|---|" if resumable else "|---|---|---|")
    for key, line in keys.items():
        value = f"`{line.value}`" if line.value else ""
        if resumable:
            last = " ✓ |" if can_change_on_resume(prefix + key) else "  |"
        yield f"| `{prefix}{key}` | {value.replace('|', chr(92) + '|')} | {prose(line.comment)} |{last}"


def prose(comment: str) -> str:
    """Return a comment as Markdown that shows each of its characters."""
    return re.sub(r"([|*\[\]])", r"\\\1", comment).replace("<", "&lt;").removesuffix(".")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
