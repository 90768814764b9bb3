"""The get_data command: find or fetch the files of a dataset."""

import logging

from omegaconf import DictConfig

from fmnist.config import logs
from fmnist.config.build import build_dataset

log = logging.getLogger(__name__)


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (every command takes both)
    """Find or fetch the files, verify them, and count their images.

    Raises:
        ValueError: if no source has them.
    """
    logs.to_terminal()
    source = build_dataset(cfg.data)
    counts = ", ".join(f"{len(labels):,} {split}" for split, (_, labels) in source.contents.splits.items())
    log.info("%s: %d classes; images: %s", source.info.name, len(source.info.classes), counts)
