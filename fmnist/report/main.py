"""Write the report of a run, from its folder and the data."""

import logging
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory, keys_as_typed
from fmnist.config.restore import build_datamodule_of, restore
from fmnist.config.settings import read_settings
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.sources import check_root
from fmnist.evaluation.measure import measure
from fmnist.report.page import write_report
from fmnist.runs.latest import named_run

log = logging.getLogger(__name__)


@dataclass
class Settings:
    """The keys of conf/report.yaml, and what they may be."""

    run: str | None
    split: Literal["val", "test"] | None
    data_root: str | None
    accelerator: str


@explain_out_of_memory("try accelerator=cpu, or another machine")
@keys_as_typed()
def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (passed to every command)
    """Measure the run's chosen checkpoint and write its report.

    Raises:
        ValueError: if there is no such run, its checkpoint can't be read, or it has no images to report on.
    """
    logs.to_terminal()
    given = read_settings(Settings, cfg)
    if given.run is None:
        raise ValueError("give run=<run folder> or run=latest")
    run = named_run("run", given.run)
    restored = restore(run.chosen_checkpoint, given.accelerator, given.data_root)
    saved = restored.config
    if given.data_root is None:
        check_root("data_root", OmegaConf.select(saved, "data.root"))
    split = given.split or ("test" if run.load_config().get("test", saved.test) else "val")
    if split == "val" and not saved.data.val_size:
        hint = "" if given.split else "; the run had test=false: only split=test, given here, can be reported on"
        raise ValueError(f"split=val: the run had no validation images (data.val_size=0){hint}")
    datamodule = build_datamodule_of(restored, run.chosen_checkpoint)
    result = measure(build_evaluation_trainer(saved), restored.classifier, datamodule, split)
    log.info("report: %s", write_report(run, restored.classifier, datamodule, result, restored.calibrator))
