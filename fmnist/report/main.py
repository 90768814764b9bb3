"""Write the report of a run, from its folder alone."""

import logging
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.build import build_datamodule
from fmnist.config.memory import explain_out_of_memory
from fmnist.config.restore import restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.config.validation import check_arguments
from fmnist.data.sources import check_root
from fmnist.evaluation.measure import measure
from fmnist.report.gather import write_report
from fmnist.runs.run import Run, open_run

log = logging.getLogger(__name__)


def settings(run: str | None, split: Literal["val", "test"] | None, data_root: str | None, accelerator: str) -> None:
    """The keys of conf/report.yaml, and what they may be."""


@explain_out_of_memory("try accelerator=cpu, or another machine")
def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
    """Measures the run's chosen checkpoint and writes its report.

    Raises:
        ValueError: if there is no such run, its checkpoint can't be read, or it has no images to report on.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items()})
    if cfg.run is None:
        raise ValueError("give run=<run folder>")
    run = open_run("run", cfg.run)
    saved, classifier, _ = restore(run.chosen_checkpoint, cfg.accelerator, cfg.data_root)
    if cfg.data_root is None:
        check_root("data_root", OmegaConf.select(saved, "data.root"))
    split = choose_split(cfg.split, run, saved)
    datamodule = build_datamodule(saved)
    result = measure(build_evaluation_trainer(saved), classifier, datamodule, split)
    log.info("report: %s", write_report(run, classifier, datamodule, split, result))


def choose_split(split: str | None, run: Run, saved: DictConfig) -> str:
    """The one that is asked for, or the test images where the run was allowed to see them.

    Raises:
        ValueError: if that leaves no images.
    """
    chosen = split or ("test" if run.load_config().get("test", saved.test) else "val")
    if chosen == "val" and not saved.data.val_size:
        reason = "" if split else "; with test=false only split=test, if you want it, can be reported on"
        raise ValueError(f"split={chosen}: the run had no validation images (data.val_size=0){reason}")
    return chosen
