"""Put the dataset in place."""

from pathlib import Path
from typing import Annotated

from annotated_types import MinLen
from omegaconf import DictConfig

from fmnist.config import logs
from fmnist.config.validation import check_arguments
from fmnist.data.sources import ensure_files


def settings(root: Annotated[str, MinLen(1)]) -> None:
    """The keys of conf/get_data.yaml, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
    """Finds, fetches and checks the four files.

    Raises:
        ValueError: if no source has them.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items()})
    ensure_files(Path(cfg.root))
