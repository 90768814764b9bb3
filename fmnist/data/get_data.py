"""The get_data command: find or fetch the four Fashion-MNIST files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen
from omegaconf import DictConfig

from fmnist.config import logs
from fmnist.config.settings import read_settings
from fmnist.data.sources import load_files


@dataclass
class Settings:
    """The keys of conf/get_data.yaml, and what they may be."""

    root: Annotated[str, MinLen(1)]


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (every command takes both)
    """Find or fetch the four files, and verify them.

    Raises:
        ValueError: if no source has them.
    """
    logs.to_terminal()
    load_files(Path(read_settings(Settings, cfg).root), key="root")
