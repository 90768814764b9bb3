"""Compare runs: which setting is best, by how much, and whether the difference is significant."""

import logging
from dataclasses import dataclass
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist.compare import PAGE_FILE, read_runs, write_comparison
from fmnist.config import logs
from fmnist.config.overrides import program
from fmnist.config.settings import read_settings
from fmnist.runs.latest import is_latest, named_run
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
        raise ValueError(f"runs=[]: name the folders of runs: {program('compare')} outputs/train")
    names = [given.runs] if isinstance(given.runs, str) else given.runs
    outputs = Path(given.outputs)
    folders = [named_run("runs", name, outputs).folder if is_latest(name) else Path(name) for name in names]
    runs = read_runs(folders)
    new: Run | None = None
    if given.output is not None:
        folder = Path(given.output)
    elif hydra.mode == RunMode.MULTIRUN:
        new = claim_run(Path(hydra.runtime.output_dir))
    elif len(folders) == 1 and runs[0].folder.resolve() != folders[0].resolve():  # not that of a single run
        folder = folders[0]
    else:
        new = new_run(outputs, "compare")
    if new:
        folder = new.folder
    try:
        log.info(write_comparison(folder.absolute(), runs, given.metric))
    except BaseException:
        if new:
            new.discard()
        raise
    log.info("page: %s", folder / PAGE_FILE)
