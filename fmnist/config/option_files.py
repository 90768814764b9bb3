"""What the YAML files of conf/ say, read as text: their options, keys, defaults and comments.

Hydra would compose the same in a few tenths of a second, which --help and messages don't take.
"""

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()).resolve()
"""In an installed package fmnist/conf is a folder, in a checkout a link to conf/, of which Windows makes a file."""
LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#\s].*?))?(?:  # (?P<comment>.*))?$", re.MULTILINE)
CHOICE = re.compile(r"^  - (?:override )?(\w+): (\w+)(?:  # (.*))?$", re.MULTILINE)


class Key(NamedTuple):
    """A key of a YAML file."""

    value: str
    """Its default, as YAML."""
    comment: str


def groups(command: str) -> list[str]:
    """Return the groups from which `conf/<command>.yaml` chooses."""
    texts = command_texts(command)
    unused = re.findall(r"^  - override (\w+): null", texts[0], re.MULTILINE)
    names = [name for text in reversed(texts) for name in re.findall(r"^  - (\w+): ", text, re.MULTILINE)]
    return [name for name in names if name not in unused and (CONF / name).is_dir()]


def options(group: str) -> list[str]:
    """Return the options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def choices(command: str, arguments: Iterable[str] = ()) -> dict[str, str]:
    """Return the option of each group that has one: the default, or what the arguments choose."""
    texts = command_texts(command)
    chosen = {group: option for text in reversed(texts) for group, option, _ in CHOICE.findall(text)}
    chosen |= dict(word.split("=", 1) for word in arguments if "=" in word)
    return {group: chosen[group] for group in groups(command) if chosen.get(group) in options(group)}


def group_comments(command: str) -> dict[str, str]:
    """Return what the groups of a command are, by name."""
    return {group: comment for text in command_texts(command) for group, _, comment in CHOICE.findall(text) if comment}


def command_keys(command: str) -> dict[str, Key]:
    """Return the keys of `conf/<command>.yaml`, and of the files that it builds on, that belong to no group."""
    found: dict[str, Key] = {}
    for text in command_texts(command):
        for key, line in _lines(text):
            if "." not in key and line.value:
                found.setdefault(key, line)
    return found


def option_keys(group: str, option: str) -> dict[str, Key]:
    """Return the keys of an option, with those of the options that it builds on.

    A key without a comment in YAML gets the sentence on this argument in the docstring of the option's `_target_`.
    """
    text = option_text(group, option)
    found: dict[str, Key] = {}
    for base in re.findall(r"^  - (\w+)$", text, re.MULTILINE):
        found |= option_keys(group, base) if base in options(group) else {}
    lines = dict(_lines(text))
    targets = {
        key.rpartition(".")[0]: line.value for key, line in lines.items() if key.rpartition(".")[2] == "_target_"
    }
    for key, (value, comment) in lines.items():
        level, _, name = key.rpartition(".")
        if value and not name.startswith("_"):
            known = found[key].comment if key in found else ""
            found[key] = Key(value, comment or known or argument_sentences(targets.get(level, "")).get(name, ""))
    return found


def option_text(group: str, option: str) -> str:
    """Return the YAML of an option."""
    return (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")


def command_texts(command: str) -> list[str]:
    """Return the text of `conf/<command>.yaml`, followed by those of the files that it builds on."""
    text = (CONF / f"{command}.yaml").read_text(encoding="utf-8")
    bases = [name for name in re.findall(r"^  - (\w+)$", text, re.MULTILINE) if name != "_self_"]
    return [text, *(below for name in bases for below in command_texts(name))]


def headline(text: str) -> str:
    """Return the first comment of a YAML file that isn't an instruction to Hydra."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# "))
    return next((line for line in comments if not line.startswith("@package")), "")


def examples(text: str) -> list[str]:
    """Return the command lines in the comments at the head of a YAML file."""
    return re.findall(r"^#   (python scripts/.*?)(?:  +# .*)?$", text, re.MULTILINE)


@functools.cache
def argument_sentences(target: str) -> dict[str, str]:
    """Return the first sentence on each argument in the docstring of a class or function of this package.

    Its file is parsed: importing it would take seconds.

    Args:
        target: its full name; another package's has no sentences.
    """
    module, _, name = target.rpartition(".")
    parts = module.split(".")
    if parts[0] != PACKAGE.name or "" in parts:
        return {}
    place = PACKAGE.joinpath(*parts[1:])
    file = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
    for node in ast.parse(file.read_text(encoding="utf-8")).body if file else []:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return _sentences(ast.get_docstring(node) or "")
        if isinstance(node, ast.ImportFrom) and name in (alias.name for alias in node.names):
            return argument_sentences(f"{node.module}.{name}")
    return {}


def _sentences(docstring: str) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:(?: .*)?\n)*(?: .*)?)", docstring, re.MULTILINE)
    found: dict[str, str] = {}
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE):
        sentence = re.split(r"(?<=\.) (?=[A-Z0-9])|; see `", " ".join(text.split()))[0]
        found |= dict.fromkeys(names.split(", "), sentence)
    return found


def _lines(text: str) -> Iterator[tuple[str, Key]]:
    """Yield the dotted key of each line of a YAML file, and its value, "" where other keys are below it."""
    above: list[tuple[int, str]] = []
    for line in LINE.finditer(text):
        indent = len(line["indent"])
        above = [(depth, key) for depth, key in above if depth < indent]
        key = ".".join([*(key for _, key in above), line["key"]])
        if not line["value"]:
            above.append((indent, line["key"]))
        if key != "defaults":
            yield key, Key(line["value"] or "", line["comment"] or "")
