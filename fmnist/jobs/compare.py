"""Compare runs: which setting is best, by how much, and whether that is more than noise."""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fmnist import logs
from fmnist.arguments import check_arguments
from fmnist.comparison import PAGE_FILE, read_runs, write_comparison
from fmnist.runs import new_run

log = logging.getLogger(__name__)


def settings(runs: str | list[str], metric: str | None, output: str | None, outputs: str) -> None:
    """The keys of conf/compare.yaml, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
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
    made = None
    if cfg.output is not None:
        folder = Path(cfg.output)
    elif len(given) == 1 and runs[0].folder.resolve() != given[0].resolve():
        folder = given[0]
    else:
        made = new_run(Path(cfg.outputs), "compare")
        folder = made.folder
    try:
        text = write_comparison(folder.absolute(), runs, cfg.metric)
    except BaseException:
        if made:
            made.discard()
        raise
    log.info(text)
    log.info("page: %s", folder / PAGE_FILE)
