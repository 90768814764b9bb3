"""Compare runs: which setting is best, by how much, and whether the difference is significant."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist.compare import PAGE_FILE, RunResult, read_runs, write_comparison
from fmnist.config import logs
from fmnist.config.settings import read_settings
from fmnist.runs.run import Run, claim_run, new_run

log = logging.getLogger(__name__)


@dataclass
class Settings:
    """The keys of conf/compare.yaml, and what they may be."""

    runs: str | list[str]
    metric: str | None
    output: str | None
    outputs: str


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Rank all runs in or below the folders; show the ranking and write it as tables and as a page.

    Raises:
        ValueError: if there are no runs, or they can't be ranked by the metric. Then nothing is written.
    """
    logs.to_terminal()
    given = read_settings(Settings, cfg)
    if not given.runs:
        raise ValueError("runs=[]: name the folders of runs: python scripts/compare.py outputs/train")
    folders = [Path(folder) for folder in ([given.runs] if isinstance(given.runs, str) else given.runs)]
    runs = read_runs(folders)
    folder = existing_folder(given.output, folders, runs)
    new: Run | None = None
    if hydra.mode == RunMode.MULTIRUN and given.output is None:
        new = claim_run(Path(hydra.runtime.output_dir))
    elif folder is None:
        new = new_run(Path(given.outputs), "compare")
    folder = new.folder if new else folder
    assert folder is not None
    try:
        log.info(write_comparison(folder.absolute(), runs, given.metric))
    except BaseException:
        if new:
            new.discard()
        raise
    log.info("page: %s", folder / PAGE_FILE)


def existing_folder(output: str | None, folders: Sequence[Path], runs: Sequence[RunResult]) -> Path | None:
    """Return `output`, or the only folder that was given; None for several folders, and for that of a single run."""
    if output is not None:
        return Path(output)
    return folders[0] if len(folders) == 1 and runs[0].folder.resolve() != folders[0].resolve() else None
