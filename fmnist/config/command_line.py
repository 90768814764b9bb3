"""From what a person types to a job: Hydra, help, and one clear line for a mistake.

Nothing heavy is imported here, so that --help, --cfg and tab completion answer at once.
"""

import atexit
import gc
import importlib
import inspect
import logging
import os
import re
import sys
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fmnist.config.help import CONF, groups, help_text, keys, options
from fmnist.config.overrides import flags_first, key_of, paths_as_list
from fmnist.config.processes import INTERRUPTED, REQUEUE, QuickEnd, Terminated, at_end
from fmnist.training.rank_info import find_rank

COMMANDS = {
    "train": "fmnist.train",
    "evaluate": "fmnist.evaluation.main",
    "report": "fmnist.report.main",
    "predict": "fmnist.predict.main",
    "compare": "fmnist.compare.main",
    "tune": "fmnist.tune.main",
    "show_data": "fmnist.data.show_data",
    "get_data": "fmnist.data.get_data",
}
"""The module with the `main` of each command."""
FULL_ERROR = "HYDRA_FULL_ERROR"
USER_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError, RecursionError, YAMLError)


def run(job: str, words: str | None = None) -> None:
    """Runs the command with the config `conf/<job>.yaml` and the overrides of the command line.

    Args:
        job: its name.
        words: the key of a list that takes what isn't an override: the paths in `compare.py outputs/train`.

    A mistake of the person who typed ends in one line on stderr and the exit status 2: a ValueError, or an OSError as
    of a full disk. With HYDRA_FULL_ERROR=1 it ends in its traceback.
    """
    try:
        typed = paths_as_list(words, sys.argv[1:]) if words else sys.argv[1:]
    except ValueError as error:
        fail(str(error))
    sys.argv[1:] = flags_first(typed)
    parser = get_args_parser()
    parser.error = lambda message: fail(f"{message} (--help lists what there is)")  # type: ignore[method-assign]
    given = parser.parse_args()
    if given.help:  # not by Hydra: it would look for its groups, twice, for most of a second
        print(help_text(job))
        return
    for word in given.overrides:
        if not key_of(word):  # Hydra stumbles over some of them
            fail(unreadable(word))
    end = QuickEnd()
    full_error = os.environ.get(FULL_ERROR)
    raises = full_error == "1"
    OmegaConf.register_new_resolver("fmnist_part", lambda whole, share: int((whole or 0) * share), replace=True)

    def task(cfg: DictConfig) -> Any:
        settings: Any = HydraConfig.get()
        if settings.mode == RunMode.MULTIRUN:
            return importlib.import_module("fmnist.sweep.job").run_in_sweep(job, cfg, settings, raises)
        try:
            check_keys(job, cfg)
            return load(job).main(cfg, settings)
        except USER_ERRORS as error:
            if raises:
                raise
            fail(explain(error, job))

    os.environ[FULL_ERROR] = "1"  # or Hydra would print the errors itself, on several lines
    try:
        with at_end:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=job)(task)()
        end.succeeded = True
    except USER_ERRORS as error:
        if raises:
            raise
        fail(explain(error, job))
    except RuntimeError as error:
        if raises or not str(error).startswith("Invalid plugin"):  # an error of Hydra's that is none of its own kind
            raise
        fail(" ".join(str(error).split()))
    except Terminated:
        sys.exit(REQUEUE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        os.environ.pop(FULL_ERROR)
        if full_error is not None:
            os.environ[FULL_ERROR] = full_error


def load(job: str) -> Any:
    """The job's module, with all that it needs."""
    name = COMMANDS[job]
    if name in sys.modules:
        return sys.modules[name]
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell of a home folder that it can't write to
    # A million objects, none of which is garbage: looking for it makes an import take 1.35 times as long.
    atexit.register(gc.unfreeze)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def check_keys(job: str, cfg: DictConfig) -> None:
    """Refuses a config from which `~key` has taken what the job needs.

    Raises:
        ValueError: naming the key.
    """
    for key in inspect.signature(load(job).settings).parameters:
        if key not in cfg:
            raise ValueError(f"{key}: there has to be one")


def fail(message: str) -> NoReturn:
    """Ends the process with a mistake's message; of several processes the first says it."""
    if find_rank().rank == 0:
        shown = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in message)
        print(f"error: {shown}", file=sys.stderr)
    sys.exit(2)


def unreadable(word: str) -> str:
    """The message for a word that is no key=value."""
    typed = " ".join(word.split())
    return f"""{typed} can't be read: it should be key=value, special characters quoted: 'key="v,a=l"'"""


def explain(error: Exception, job: str) -> str:
    """A mistake as one line that names what is near; what is said by the project itself is left as it is."""
    from fmnist.config.validation import did_you_mean

    if isinstance(error, OSError) and error.strerror:  # the system's
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, RecursionError):
        return "a value is nested too deeply"
    message = str(error)
    if message.startswith("Exceeds the limit"):  # of Python, for digits
        return "a number is too long"
    if message.startswith("Config group override must be"):  # which one, Hydra doesn't say
        for group, _, option in (word.partition("=") for word in sys.argv[1:] if key_of(word) in groups(job)):
            if option not in options(group):
                return f"{group}={option}: there is no such option{did_you_mean(option, options(group))}"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        own = isinstance(error, ValueError | OSError) and type(error) is not ValueError  # may have several lines
        return message if own else " ".join(message.split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and "/" in error.missing_cfg_file:
        group, option = error.missing_cfg_file.rsplit("/", 1)
        if group == "hydra/launcher" and option.startswith(("submitit", "ray")):
            return f"hydra/launcher={option}: `make cluster` installs it"
        return f"{group}={option}: there is no such option{did_you_mean(option, options(group))}"
    if isinstance(error, OverrideParseException):
        return unreadable(error.override or "")
    if found := re.match(r"Ambiguous value for argument '(.*?)'", message):
        return first_mistake(job) or f"{found[1]}: add -m to run each of the values; a list is written [1,2]"
    if found := re.search(r"Could not (?:override|append to config|delete from config)[. ]*.*?'(.+?)'", message):
        key = found[1].split("=")[0].split("@")[0]
        if below := re.search(rf"full_key: ({re.escape(key)}\.\S+)", str(error.__cause__)):  # of key={unknown: ...}
            key = below[1]
        level = key.rpartition(".")[0]
        known = keys(job)
        if key in known:
            return f"{key}: there is one already: leave out the +" if "append" in found[0] else f"{key}: it is null"
        siblings = [name for name in known if name.rpartition(".")[0] == level]
        return f"{key}: there is no such key{did_you_mean(key, siblings or known)}"
    if found := re.match(r"(?:Key|Missing key) '?(\w+)'?", message):
        return f"{found[1]}: there has to be one"
    return " ".join(message.split())


def first_mistake(job: str) -> str | None:
    """What is wrong with the words that have one value: Hydra hides it where others have several."""
    words = [word for word in sys.argv[1:] if "=" in word and "," not in word]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            hydra.compose(job, words, return_hydra_config=True)
        except HydraException as error:
            return explain(error, job)
    return None
