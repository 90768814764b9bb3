"""A command in a process that has more to do, such as a notebook's."""

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.command_line import check_groups, load
from fmnist.config.help import CONF
from fmnist.config.messages import USER_ERRORS, explain
from fmnist.config.overrides import expand_home, quoted_path


@contextlib.contextmanager
def composed(command: str, overrides: Sequence[str]) -> Iterator[tuple[DictConfig, DictConfig]]:
    """Yield the config of a command and Hydra's own, and turn errors of the user into one line.

    Args:
        command: its name.
        overrides: as on the command line.

    Raises:
        ValueError: also for errors within the context that the command line would report in one line.
    """
    if isinstance(overrides, str):
        raise TypeError(f"overrides: must be a list of strings, as [{overrides!r}]")
    typed = sys.argv
    sys.argv = [typed[0], *map(quoted_path, overrides)]  # where messages and records look for them
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            whole = compose(command, sys.argv[1:], return_hydra_config=True)
        cfg = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        check_groups(command, cfg)
        expand_home(cfg)
        load(command)
        yield cfg, whole.hydra
    except USER_ERRORS as error:
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            raise
        raise ValueError(explain(error, command)) from error
    finally:
        sys.argv = typed


@contextlib.contextmanager
def state_kept() -> Iterator[None]:
    """Restore, in the end, what a command changes in its process."""
    loggers = [*logs.LOGGERS, logging.getLogger()]
    handlers = [(logger, logger.level, logger.propagate, [*logger.handlers]) for logger in loggers]
    numbers, environment = (random.getstate(), np.random.get_state()), dict(os.environ)
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    formatted, hydra = warnings.formatwarning, GlobalHydra.instance().hydra
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, where Lightning is imported
        try:
            yield
        finally:
            random.setstate(numbers[0])
            np.random.set_state(numbers[1])
            os.environ.clear()
            os.environ.update(environment)
            logging.captureWarnings(False)
            warnings.formatwarning = formatted
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            GlobalHydra.instance().hydra = hydra
            for logger, level, propagate, kept in handlers:
                logger.level, logger.propagate, logger.handlers = level, propagate, kept
