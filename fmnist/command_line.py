"""From what a person types to a job: Hydra, help, and one clear line for a mistake.

Nothing heavy is imported here, so that --help, --cfg and tab completion answer at once.
"""

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist.runs import Run, new_run

CONF = Path(__file__).resolve().parent.parent / "conf"
FULL_ERROR = "HYDRA_FULL_ERROR"
MISTAKES = (HydraException, OmegaConfBaseException, ValueError, OSError)
INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended


def run(job: str) -> None:
    """Runs the job `fmnist.jobs.<job>` with the config `conf/<job>.yaml` and the overrides of the command line.

    A mistake of the person who typed ends in one line on stderr and the exit status 2: a ValueError, or an OSError as
    of a full disk. With HYDRA_FULL_ERROR=1 it ends in its traceback.
    """
    full_error = os.environ.get(FULL_ERROR)
    sweep = SweepFolder()
    OmegaConf.register_new_resolver("fmnist_help", help_text, replace=True)
    OmegaConf.register_new_resolver("fmnist_sweep_folder", sweep, replace=True)

    def task(cfg: DictConfig) -> Any:
        try:
            return importlib.import_module(f"fmnist.jobs.{job}").main(cfg, HydraConfig.get())
        except MISTAKES as error:
            if full_error == "1":
                raise
            fail(explain(error, job))

    os.environ[FULL_ERROR] = "1"  # or Hydra would print the errors itself, on several lines
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=job)(task)()
    except MISTAKES as error:
        if full_error == "1":
            raise
        fail(explain(error, job))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        sweep.discard_if_unused()
        os.environ.pop(FULL_ERROR)
        if full_error is not None:
            os.environ[FULL_ERROR] = full_error


class SweepFolder:
    """The folder of a sweep: outputs/name/date_time, which no other run or sweep has, made when Hydra asks for it."""

    def __init__(self) -> None:
        self.run: Run | None = None

    def __call__(self, outputs: str, name: str) -> str:
        self.run = self.run or new_run(Path(outputs), name)
        return str(self.run.folder)

    def discard_if_unused(self) -> None:
        """Removes the folder if nothing but Hydra's own notes lies there, as after a mistake in the first job."""
        if self.run is not None and not any(path.name != "multirun.yaml" for path in self.run.folder.rglob("*")):
            self.run.discard()


def fail(message: str) -> None:
    """Ends the process with a mistake's message."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def explain(error: Exception, job: str) -> str:
    """A mistake as one line that names what is near; what is said by the project itself is left as it is."""
    from fmnist.arguments import did_you_mean

    if not isinstance(error, HydraException | OmegaConfBaseException):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and "/" in error.missing_cfg_file:
        group, option = error.missing_cfg_file.rsplit("/", 1)
        return f"{group}={option}: there is no such option{did_you_mean(option, options(group))}"
    if isinstance(error, OverrideParseException):
        return f"""{error.override} can't be read: it should be key=value, special characters quoted: 'key="v,a=l"'"""
    message = str(error)
    if found := re.search(r"Could not (?:override|append to config|delete from config)[. ]*.*?'(.+?)'", message):
        key = found[1].split("=")[0].split("@")[0]
        if below := re.search(rf"full_key: ({re.escape(key)}\.\S+)", str(error.__cause__)):  # of key={unknown: ...}
            key = below[1]
        level = key.rpartition(".")[0]
        known = keys(job)
        siblings = [name for name in known if name.rpartition(".")[0] == level]
        return f"{key}: there is no such key{did_you_mean(key, siblings or known)}"
    if found := re.match(r"(?:Key|Missing key) '?(\w+)'?", message):
        return f"{found[1]}: there has to be one"
    return " ".join(message.split())


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
    return "\n".join(lines).replace("$", "$$")


def _headline(text: str) -> str:
    """The first comment of a YAML file that isn't an instruction to Hydra."""
    comments = (line[2:] for line in text.splitlines() if line.startswith("# "))
    return next((line for line in comments if not line.startswith("@package")), "")
