"""Compare runs: which setting is best, by how much, and whether that is more than noise."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist.compare import PAGE_FILE, RunResult, read_runs, write_comparison
from fmnist.config import logs
from fmnist.config.validation import check_arguments
from fmnist.runs.run import Run, claim_run, new_run

log = logging.getLogger(__name__)


def settings(runs: str | list[str], metric: str | None, output: str | None, outputs: str) -> None:
    """The keys of conf/compare.yaml, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:
    """Shows the ranking of all runs in or below the folders, and writes it as tables and as a page.

    Raises:
        ValueError: if there are no runs, or they can't be ranked by the metric. Then nothing is written.
    """
    logs.to_terminal()
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    check_arguments("", settings, {str(key): value for key, value in values.items()})
    if not cfg.runs:
        raise ValueError("name the folders of runs: python scripts/compare.py outputs/train")
    given = [Path(cfg.runs)] if isinstance(cfg.runs, str) else [Path(folder) for folder in cfg.runs]
    runs = read_runs(given)
    own = own_folder(cfg.output, given, runs)
    if hydra.mode == RunMode.MULTIRUN and cfg.output is None:
        made: Run | None = claim_run(Path(hydra.runtime.output_dir))
    else:
        made = None if own else new_run(Path(cfg.outputs), "compare")
    folder = made.folder if made else own
    assert folder is not None
    try:
        log.info(write_comparison(folder.absolute(), runs, cfg.metric))
    except BaseException:
        if made:
            made.discard()
        raise
    log.info("page: %s", folder / PAGE_FILE)


def own_folder(output: str | None, given: Sequence[Path], runs: Sequence[RunResult]) -> Path | None:
    """What is asked for, or the one folder that was given; None where there are several, or it is a run itself."""
    if output is not None:
        return Path(output)
    return given[0] if len(given) == 1 and runs[0].folder.resolve() != given[0].resolve() else None
