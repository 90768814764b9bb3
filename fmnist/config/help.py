"""The groups of conf/, their options and all keys, and the text of --help."""

import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from fmnist.config.overrides import program

PACKAGE = Path(__file__).parents[1]
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()).resolve()
"""In an installed package fmnist/conf is a folder, in a checkout a link to conf/, of which Windows makes a file."""


def groups(job: str) -> list[str]:
    """Return the groups from which `conf/<job>.yaml` chooses."""
    texts = _texts(job)
    unused = re.findall(r"^  - override (\w+): null", texts[0], re.MULTILINE)
    names = [name for text in reversed(texts) for name in re.findall(r"^  - (\w+): ", text, re.MULTILINE)]
    return [name for name in names if name not in unused and (CONF / name).is_dir()]


def options(group: str) -> list[str]:
    """Return the options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def keys(job: str, choice: str | None = None) -> list[str]:
    """Return everything that can stand before a '=': the groups, and each key of the composed config.

    Args:
        job: the command.
        choice: group=option; None takes the choices of the command line.
    """
    names = groups(job)
    choices = [word for word in sys.argv[1:] if word.split("=")[0] in names and "," not in word]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = OmegaConf.to_container(hydra.compose(job, [choice] if choice else choices))
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


def help_text(job: str) -> str:
    """Return the text of --help: one line for each option and key, from the YAML files."""
    texts = _texts(job)
    names = groups(job)
    lines = [_headline(texts[0]), "", f"  {program(job)} [key=value ...]", ""]
    if names:
        lines += ["Choices (group=option, * is the default); what they hold can be changed too (group.key=value):"]
    choice = re.compile(r"^  - (?:override )?(\w+): (\w+)", re.MULTILINE)
    defaults = dict(pair for text in reversed(texts) for pair in choice.findall(text))
    for group in names:
        for option in options(group):
            mark = "*" if defaults.get(group) == option else " "
            headline = _headline((CONF / group / f"{option}.yaml").read_text(encoding="utf-8"))
            lines.append(f" {mark} {f'{group}={option}':<28} {headline}")
    lines += ["", "Keys:"] if names else ["Keys:"]
    described: dict[str, str] = {}
    for text in texts:
        for key, value, comment in re.findall(r"^(\w+): (\S.*?)(?:  # (.*))?$", text, re.MULTILINE):
            described.setdefault(key, f"   {f'{key}={value}':<28} {comment}")
    lines += [*described.values(), ""]
    lines.append("--cfg job shows the whole config, --multirun (-m) runs every combination of a=1,2 b=3,4.")
    return "\n".join(lines)


def _texts(job: str) -> list[str]:
    """Return the text of `conf/<job>.yaml`, followed by those of the files that it builds on."""
    text = (CONF / f"{job}.yaml").read_text(encoding="utf-8")
    bases = [name for name in re.findall(r"^  - (\w+)$", text, re.MULTILINE) if name != "_self_"]
    return [text, *(below for name in bases for below in _texts(name))]


def _headline(text: str) -> str:
    """Return the first comment of a YAML file that isn't an instruction to Hydra."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# "))
    return next((line for line in comments if not line.startswith("@package")), "")
