"""Error messages of the command line: one line that names the key, what is wrong with it, and what is near."""

import re
import sys
from typing import NoReturn

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fmnist.config.guesses import did_you_mean_key
from fmnist.config.help import CONF, groups, keys, options
from fmnist.config.overrides import key_of
from fmnist.config.similar import did_you_mean, nearest, plain
from fmnist.training.rank_info import find_rank

BY_NAME = ("torchvision", "timm")
"""Options of the group model that build a network by its name."""
USER_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError, RecursionError, YAMLError)
"""Errors that end in one line instead of a traceback: invalid input, or a fault of the system."""


def fail(message: str) -> NoReturn:
    """End the process with an error message and the exit status 2; of several processes rank zero prints it."""
    if find_rank().rank == 0:
        shown = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in message)
        print(f"error: {shown}", file=sys.stderr)
    sys.exit(2)


def unreadable(override: str) -> str:
    """Return the message for an argument that is not key=value."""
    typed = " ".join(override.split())
    example = """special characters quoted: 'key="v,a=l"'""" if "=" in typed else "as optimizer.lr=0.1"
    return f"{typed} can't be read: must be key=value, {example}"


def explain(error: Exception, command: str) -> str:
    """Return an error as one line; the project's own messages are left as they are."""
    if isinstance(error, OSError) and error.strerror:  # the system's
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, RecursionError):
        return "a value is nested too deeply"
    message = str(error)
    if message.startswith("Exceeds the limit"):  # Python's, for digits
        return "a number is too long"
    if message.startswith("Config group override must be"):  # Hydra doesn't say which
        for group, _, option in (word.partition("=") for word in sys.argv[1:] if key_of(word) in groups(command)):
            if option not in options(group):
                return no_option(group, option)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain_hydra(error, command)
    own = isinstance(error, ValueError | OSError) and type(error) is not ValueError  # may have several lines
    return message if own else " ".join(message.split())


def explain_hydra(error: Exception, command: str) -> str:
    """Return an error of Hydra or OmegaConf as one line."""
    message = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and "/" in error.missing_cfg_file:
        group, option = error.missing_cfg_file.rsplit("/", 1)
        if group == "hydra/launcher" and option.startswith(("submitit", "ray")):
            return f"hydra/launcher={option}: `make extras` installs it"
        return no_option(group, option)
    if isinstance(error, OverrideParseException):
        return unreadable(error.override or "")
    if found := re.match(r"Ambiguous value for argument '(.*?)'", message):
        return first_error(command) or f"{found[1]}: add -m to run each of the values; a list is written [1,2]"
    if found := re.search(r"Could not (?:override|append to config|delete from config)[. ]*.*?'(.+?)'", message):
        key = found[1].split("=")[0].split("@")[0]
        if below := re.search(rf"full_key: ({re.escape(key)}\.\S+)", str(error.__cause__)):  # as in key={unknown: ...}
            key = below[1]
        return explain_key(key, command, appended="append" in found[0])
    if found := re.match(r"(?:Key|Missing key) '?(\w+)'?", message):
        return f"{found[1]}: is required"
    return " ".join(message.split())


def explain_key(key: str, command: str, *, appended: bool) -> str:
    """Return the message for a key that can't be set, with the nearest ones."""
    known, level, group = keys(command), key.rpartition(".")[0], key.partition(".")[0]
    swept = next((word for word in sys.argv[1:] if "." in key and key_of(word) == group and "," in word), "")
    if any(key in keys(command, f"{group}={option}") for option in swept.partition("=")[2].split(",") if option):
        return f"{key}: not all of {swept} and the default have it; ++{key}=... sets it in those that do"
    if key in known:
        return f"{key}: there is one already: leave out the +" if appended else f"{key}: it is null"
    typed = next((word for word in sys.argv[1:] if key_of(word) == key), "")
    if meant := did_you_mean_key(command, key, typed.partition("=")[2] or None, sys.argv[1:]):
        return f"{key}: there is no such key{meant}"
    siblings = [name for name in known if name.rpartition(".")[0] == level]
    near = nearest(key, siblings) or nearest(key, known)
    return f"{key}: there is no such key{did_you_mean(key, near or siblings or known)}"


def no_option(group: str, option: str) -> str:
    """Return the message for an option that a group doesn't have, with the nearest ones."""
    known = [*BY_NAME, "null", "", *(own for own in options(group) if plain(own) == plain(option))]
    may_be_name = group == "model" and not {*known} & {option, *nearest(option, options(group))}
    libraries = [name for name in BY_NAME if name in options(group)] if may_be_name else []
    by_name = " or ".join(f"model={library} model.name={option}" for library in libraries)
    hint = f"; a network by its name is {by_name}" if by_name else ""
    return f"{group}={option}: there is no such option{did_you_mean(option, options(group))}{hint}"


def first_error(command: str) -> str | None:
    """Return the error in the overrides that have one value: Hydra hides it where others have several."""
    overrides = [word for word in sys.argv[1:] if "=" in word and "," not in word]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            hydra.compose(command, overrides, return_hydra_config=True)
        except HydraException as error:
            return explain(error, command)
    return None
