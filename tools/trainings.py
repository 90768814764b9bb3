"""Trainings of scripts/train.py in this process, for what measures their parts."""

import contextlib
import functools
import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fmnist.config.build import Training, build_training
from fmnist.config.help import CONF
from fmnist.runs.run import Run
from fmnist.training.fit import prepare_data


@functools.cache  # composing takes half a second
def compose_train(*overrides: str) -> DictConfig:
    """Return the config of `scripts/train.py <overrides>`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


@contextlib.contextmanager
def open_training(*overrides: str) -> Iterator[Training]:
    """Yield the training of `scripts/train.py <overrides>` before its first step, its data read, in a temporary folder.

    Raises:
        ValueError: if a value isn't allowed.
        HydraException: if an override names no key or option.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = build_training(compose_train("pictures=none", *overrides), Run(Path(folder)))
        prepare_data(training)
        yield training
    del training
    gc.collect()  # Trainer and callbacks refer to each other, and so keep 50 MB of images
