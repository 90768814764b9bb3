"""The way from the command line to a command's `main`: Hydra, --help, and one-line errors.

Nothing heavy is imported here, so that --help, --cfg and tab completion answer at once.
"""

import argparse
import atexit
import gc
import importlib
import logging
import os
import sys
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist.config.guesses import check_guesses
from fmnist.config.help import CONF, commands_text, groups, help_text, usage
from fmnist.config.messages import USER_ERRORS, explain, fail, unreadable
from fmnist.config.overrides import check_secrets, expand_home, flags_first, key_of, paths_as_value
from fmnist.config.processes import INTERRUPTED, REQUEUE, Terminated, at_end, quick_end
from fmnist.config.similar import did_you_mean

COMMANDS = {
    "train": "fmnist.run_training",
    "evaluate": "fmnist.evaluation.main",
    "report": "fmnist.report.main",
    "robustness": "fmnist.robustness.main",
    "predict": "fmnist.predict.main",
    "export": "fmnist.export.main",
    "demo": "fmnist.demo.main",
    "compare": "fmnist.compare.main",
    "tune": "fmnist.tune.main",
    "find_lr": "fmnist.find_lr",
    "show_data": "fmnist.data.show_data",
    "audit_data": "fmnist.audit.main",
    "get_data": "fmnist.data.get_data",
}
"""The module with the `main` of each command."""
PATHS_KEYS = {
    "evaluate": "run",
    "report": "run",
    "robustness": "run",
    "predict": "images",
    "export": "run",
    "demo": "run",
    "compare": "runs",
}
"""The key of a command that takes the paths among its arguments, as in `compare.py outputs/train`."""
FULL_ERROR = "HYDRA_FULL_ERROR"


def main() -> None:
    """Run the command that the first argument names: `fmnist train optimizer=sgd`.

    The name becomes the value of Hydra's flag -cn, so that a process started with the same arguments runs it too.
    """
    if sys.argv[1:] in ([], ["help"], ["-h"], ["--help"]):
        print(commands_text(list(COMMANDS)))
        return
    if sys.argv[1:2] != ["-cn"]:
        sys.argv.insert(1, "-cn")
    typed = "".join(sys.argv[2:3])
    name = typed.replace("-", "_").removesuffix(".py")
    if name not in COMMANDS:
        known = [command.replace("_", "-") for command in COMMANDS]
        fail(f"fmnist {typed}: there is no such command{did_you_mean(typed, known)}")
    sys.argv[2] = name
    run(name)


def run(command: str) -> None:
    """Run a command with the config `conf/<command>.yaml` and the overrides of the command line.

    Invalid input and faults of the system end in one line on stderr and the exit status 2; with HYDRA_FULL_ERROR=1 in
    a traceback.

    Args:
        command: its name.
    """
    given = read_arguments(command)
    if given.help:  # not by Hydra, which would look for its groups, twice, for most of a second
        try:
            print(help_text(command, given.overrides), flush=True)
        except ValueError as error:
            fail(str(error))
        except BrokenPipeError:  # as of `| head`; at its end Python would try to write again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    raises = os.environ.get(FULL_ERROR) == "1"
    OmegaConf.register_new_resolver("fmnist_part", lambda whole, share: int((whole or 0) * share), replace=True)

    def task(cfg: DictConfig) -> Any:
        settings: Any = HydraConfig.get()
        expand_home(cfg)
        if settings.mode == RunMode.MULTIRUN:
            return importlib.import_module("fmnist.sweep.job").run_in_sweep(command, cfg, settings, raises)
        try:
            return call(command, cfg, settings)
        except USER_ERRORS as error:  # here, as Hydra would print a line of its own about it
            if raises:
                raise
            end_with_error(error)

    def end_with_error(error: Exception) -> NoReturn:
        if getattr(error, "reported", False):  # by another process of the run
            sys.exit(2)
        fail(explain(error, command))

    try:
        run_hydra(task, command)
        quick_end.prepare(0)
    except USER_ERRORS as error:
        if raises:
            raise
        end_with_error(error)
    except RuntimeError as error:
        if raises or not str(error).startswith("Invalid plugin"):  # an error of Hydra's without a class of its own
            raise
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt as signal:
        status = REQUEUE if isinstance(signal, Terminated) else INTERRUPTED
        quick_end.prepare(status)
        sys.exit(status)


def read_arguments(command: str) -> argparse.Namespace:
    """Bring the arguments of the command line into Hydra's grammar, and return its flags and overrides.

    Those that Hydra would fail on or misread end in one line on stderr.
    """
    parser = get_args_parser()
    flags = {name: action.nargs != 0 for name, action in parser._option_string_actions.items()}
    asked = {"-h", "--help"} & {*sys.argv}
    typed = sys.argv[3:] if sys.argv[1:3] == ["-cn", command] else sys.argv[1:]
    try:
        words = {word.partition("=")[0] for word in sys.argv}
        if not asked and not {"-cp", "-cd", "--config-path", "--config-dir"} & words:  # which may have more keys
            check_guesses(command, typed, flags)
        sys.argv[1:] = flags_first(paths_as_value(None if asked else PATHS_KEYS.get(command), sys.argv[1:]))
    except ValueError as error:
        fail(str(error))
    if command in PATHS_KEYS and not typed:
        print(usage(command), file=sys.stderr)
        sys.exit(2)
    parser.error = lambda message: fail(f"{message} (--help lists what there is)")  # type: ignore[method-assign]
    given = parser.parse_args()
    try:
        check_secrets(given.overrides)
    except ValueError as error:
        fail(str(error))
    if unclear := [override for override in given.overrides if not key_of(override) and not given.help]:
        fail(unreadable(unclear[0]))
    if given.multirun and (given.cfg or given.info):
        fail("--cfg and --info show one config: leave out -m, and give one value to each key")
    if given.hydra_help:  # Hydra would look for the overrides among its own keys
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in given.overrides]
    return given


def run_hydra(task: Any, command: str) -> None:
    """Let Hydra compose the config and call the task with it; errors are raised instead of printed on several lines."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        with at_end:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(task)()
    finally:
        os.environ.pop(FULL_ERROR)
        if before is not None:
            os.environ[FULL_ERROR] = before


def call(command: str, cfg: DictConfig, settings: DictConfig) -> Any:
    """Call the `main` of a command."""
    check_groups(command, cfg)
    return load(command).main(cfg, settings)


def check_groups(command: str, cfg: DictConfig) -> None:
    """Refuse a config with a group that the command doesn't use, as `+optimzer.lr=1` makes one.

    Raises:
        ValueError: naming the nearest groups.
    """
    known = groups(command)
    for key, value in cfg.items():
        if isinstance(value, DictConfig) and key not in known:
            raise ValueError(f"{key!s}: there is no such key{did_you_mean(str(key), known)}")


def load(command: str) -> Any:
    """Import the module of a command, with everything that it needs."""
    name = COMMANDS[command]
    if name in sys.modules:
        return sys.modules[name]
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home folder that it can't write to
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a notebook sets a backend that isn't here
    # A million objects, none of which is garbage: searching them makes an import take 1.35 times as long.
    atexit.register(gc.unfreeze)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
