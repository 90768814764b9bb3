"""The text of --help, and all keys of a command."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from fmnist.config.option_files import (
    CONF as CONF,
)
from fmnist.config.option_files import (
    Key,
    choices,
    command_keys,
    command_texts,
    examples,
    group_comments,
    headline,
    option_keys,
    option_text,
)
from fmnist.config.option_files import groups as groups
from fmnist.config.option_files import options as options
from fmnist.config.overrides import program
from fmnist.config.similar import did_you_mean, nearest

COMMON = (
    *("optimizer.lr", "trainer.max_epochs", "data.batch_size", "seed", "model", "model.dropout"),
    *("optimizer", "optimizer.weight_decay", "data", "data.root"),
)
"""The keys that most people look for."""
WIDTH, COLUMN = 80, 30
SETS = ("experiment", "sweep", "search")
"""Groups whose options set the keys of other groups."""


def keys(job: str, choice: str | None = None) -> list[str]:
    """Return everything that can stand before a '=': the groups, and each key of the composed config.

    Args:
        job: the command.
        choice: group=option; None takes the choices of the command line.
    """
    names = groups(job)
    chosen = [word for word in sys.argv[1:] if word.split("=")[0] in names and "," not in word]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = OmegaConf.to_container(hydra.compose(job, [choice] if choice else chosen))
        except HydraException:  # one of the choices is invalid, too
            cfg = OmegaConf.to_container(hydra.compose(job))
    found = dict.fromkeys(names)

    def collect(node: Any, prefix: str) -> None:
        for key, value in node.items():
            found[f"{prefix}{key}"] = None
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")

    collect(cfg, "")
    return [key for key in found if not key.rsplit(".")[-1].startswith("_")]


def help_text(job: str, arguments: Sequence[str] = ()) -> str:
    """Return the text of --help: the common keys, each option, and each key with its default and what it is.

    Args:
        job: the command.
        arguments: choices (group=option), whose keys are shown; or one group or key, shown alone.

    Raises:
        ValueError: if there is no such group or key.
    """
    if asked := [word for word in arguments if "=" not in word]:
        return "\n".join(topic_lines(job, asked[0]))
    chosen = choices(job, arguments)
    known = all_keys(job, chosen)
    comments = group_comments(job)
    names = groups(job)
    lines = usage_lines(job)
    if common := [key for key in COMMON if key in known or key in chosen] if names else []:
        lines += ["", "Common keys:"]
    for key in common:
        line = known.get(key)
        lines += entry(key, line or Key(chosen[key], f"{comments.get(key, '')}: {', '.join(options(key))}"))
    if names:
        lines += ["", "Choices (group=option; * is the default); --help GROUP shows their keys:"]
    for group in names:
        for option in options(group):
            lines += entry(group, Key(option, headline(option_text(group, option))), chosen.get(group) == option)
    rest = {key: line for key, line in known.items() if key not in common}
    lines += ["", "Other keys, with the defaults of the choices marked *:"] if names else ["", "Keys:"]
    for key, line in rest.items():
        lines += entry(key, line)
    lines += ["", "--help KEY shows one key or group. --cfg job shows the whole config."]
    lines += ["--multirun (-m) runs every combination of a=1,2 b=3,4."]
    return "\n".join(lines)


def usage(job: str) -> str:
    """Return how a command is used, for one that was started without arguments."""
    lines = [*usage_lines(job), "", f"{program(job)} --help shows each key."]
    return "\n".join(lines)


def usage_lines(job: str) -> list[str]:
    """Return what a command does, and examples."""
    text = command_texts(job)[0]
    shown = [line.replace(f"python scripts/{job}.py", program(job)) for line in examples(text)]
    return [headline(text), "", f"  {program(job)} [key=value ...]", *(f"  {line}" for line in shown)]


def commands_text(commands: Sequence[str]) -> str:
    """Return the list of all commands."""
    lines = ["Train and use image classifiers: fmnist COMMAND [key=value ...]", "", "Commands:"]
    for command in commands:
        lines += entry(command.replace("_", "-"), Key("", headline(command_texts(command)[0])), column=12)
    return "\n".join([*lines, "", "fmnist COMMAND --help shows what a command does, and its keys."])


def all_keys(job: str, chosen: dict[str, str]) -> dict[str, Key]:
    """Return the keys of a command: its own, and those of the chosen options, which have the group's name in front."""
    found = command_keys(job)
    for group, option in chosen.items():
        if group not in SETS:
            found |= {f"{group}.{key}": line for key, line in option_keys(group, option).items()}
    return found


def topic_lines(job: str, topic: str) -> Iterator[str]:
    """Yield what there is on one group, in full, or on each key with this name.

    Raises:
        ValueError: if there is nothing.
    """
    names = groups(job)
    if topic not in names:
        found = dict(_keys_named(job, topic))
        if not found:
            near = nearest(topic, [*names, *all_keys(job, choices(job))])
            raise ValueError(f"--help {topic}: there is no such key{did_you_mean(topic, near)}")
        for key, line in found.items():
            yield from entry(key, line)
        return
    default = choices(job).get(topic)
    comment = group_comments(job).get(topic)
    yield f"{topic}: {comment}" if comment else f"{topic}:"
    prefix = "" if topic in SETS[:2] else f"{topic}."
    for option in options(topic):
        yield ""
        yield from entry(topic, Key(option, headline(option_text(topic, option))), option == default)
        for key, line in option_keys(topic, option).items():
            yield from ("  " + text for text in entry(f"{prefix}{key}", line, width=WIDTH - 2))


def _keys_named(job: str, topic: str) -> Iterator[tuple[str, Key]]:
    """Yield the keys with a name, or whose last part it is: first those of the defaults, then of other options."""
    name = topic.rpartition(".")[2]

    def fits(key: str) -> bool:
        return key == topic or (topic == name and key.rpartition(".")[2] == name)

    yield from ((key, line) for key, line in all_keys(job, choices(job)).items() if fits(key))
    for group in groups(job):
        for option in options(group) if group not in SETS else ():
            if option != choices(job).get(group):
                for key, line in option_keys(group, option).items():
                    if fits(f"{group}.{key}"):
                        yield f"{group}={option} {group}.{key}", line


def entry(key: str, line: Key, default: bool = False, column: int = COLUMN, width: int = WIDTH) -> list[str]:
    """Return the lines on a key: key=value, and a sentence on it."""
    value = line.value.replace(", ", ",").replace(": ", ":")
    literal = line.comment.startswith(("true ", "false ", "null "))
    sentence = line.comment if literal else line.comment[:1].upper() + line.comment[1:]
    if sentence and sentence[-1] not in ".:?!":
        sentence += "."
    first = f" {'*' if default else ' '} {f'{key}={value}' if value else key:<{column}} "
    return textwrap.wrap(
        sentence,
        width,
        initial_indent=first,
        subsequent_indent=" " * (column + 4),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]
