"""What can be typed: the groups of conf/, their options, every key; and the --help that lists them."""

import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"


def groups(job: str) -> list[str]:
    """The groups among which `conf/<job>.yaml` chooses."""
    texts = _texts(job)
    unused = re.findall(r"^  - override (\w+): null", texts[0], re.MULTILINE)
    names = [name for text in reversed(texts) for name in re.findall(r"^  - (\w+): ", text, re.MULTILINE)]
    return [name for name in names if name not in unused and (CONF / name).is_dir()]


def _texts(job: str) -> list[str]:
    """What stands in `conf/<job>.yaml`, and then in the files of other jobs on which it builds."""
    text = (CONF / f"{job}.yaml").read_text()
    bases = [name for name in re.findall(r"^  - (\w+)$", text, re.MULTILINE) if name != "_self_"]
    return [text, *(below for name in bases for below in _texts(name))]


def options(group: str) -> list[str]:
    """The options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def keys(job: str) -> list[str]:
    """Everything that can stand before a '=': the groups, and each key of the composed config."""
    choices = [word for word in sys.argv[1:] if word.split("=")[0] in groups(job) and "," not in word]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = OmegaConf.to_container(hydra.compose(job, choices))
        except HydraException:  # one of the choices is a mistake, too
            cfg = OmegaConf.to_container(hydra.compose(job))
    found: dict[str, None] = dict.fromkeys(groups(job))

    def collect(node: Any, prefix: str) -> None:
        for key, value in node.items():
            found[f"{prefix}{key}"] = None
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")

    collect(cfg, "")
    return [key for key in found if not key.rsplit(".")[-1].startswith("_")]


def help_text(job: str) -> str:
    """What --help prints: each group with its options, each key, a line for every one, taken from the YAML files."""
    texts = _texts(job)
    lines = [_headline(texts[0]), "", f"  python scripts/{job}.py [key=value ...]", ""]
    if groups(job):
        lines += ["Choices (group=option); what they hold can be changed too (group.key=value):"]
    chosen = dict(
        found
        for text in reversed(texts)
        for found in re.findall(r"^  - (?:override )?(\w+): (\w+)", text, re.MULTILINE)
    )
    for group in groups(job):
        for option in options(group):
            mark = "*" if chosen.get(group) == option else " "
            lines.append(
                f" {mark} {f'{group}={option}':<28} {_headline((CONF / group / f'{option}.yaml').read_text())}"
            )
    lines += ["   (* is taken where nothing else is said)", ""] if groups(job) else []
    lines.append("Keys:")
    keys: dict[str, str] = {}
    for text in texts:
        for key, value, comment in re.findall(r"^(\w+): (\S.*?)(?:  # (.*))?$", text, re.MULTILINE):
            keys.setdefault(key, f"   {f'{key}={value}':<28} {comment}")
    lines += keys.values()
    lines += ["", "--cfg job shows the whole config, --multirun (-m) runs every combination of a=1,2 b=3,4."]
    return "\n".join(lines)


def _headline(text: str) -> str:
    """The first comment of a YAML file that isn't an instruction to Hydra."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# "))
    return next((line for line in comments if not line.startswith("@package")), "")
