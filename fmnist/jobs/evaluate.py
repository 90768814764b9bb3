"""Measure a trained classifier again, from its checkpoint alone."""

from typing import Literal

from omegaconf import DictConfig, OmegaConf

from fmnist import logs
from fmnist.arguments import check_arguments
from fmnist.build import build_datamodule, build_measuring_trainer, restore
from fmnist.data.sources import check_root
from fmnist.evaluation import measure, show
from fmnist.memory import enough_memory
from fmnist.runs import checkpoint_file


def settings(
    run: str | None, checkpoint: str | None, split: Literal["val", "test"], data_root: str | None, accelerator: str
) -> None:
    """The keys of conf/evaluate.yaml, and what they may be."""


@enough_memory("try accelerator=cpu, or another machine")
def main(cfg: DictConfig, hydra: DictConfig) -> float:  # noqa: ARG001 (what every job gets)
    """Shows the result of a checkpoint on a split and returns its accuracy.

    Raises:
        ValueError: if there is no such run or checkpoint, or it can't be read.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items()})
    path = checkpoint_file(cfg.run, cfg.checkpoint)
    saved, classifier = restore(path, cfg.accelerator, cfg.data_root)
    if cfg.data_root is None:
        check_root("data_root", OmegaConf.select(saved, "data.root"))
    if cfg.split == "val" and not saved.data.val_size:
        raise ValueError("split=val: the run had no validation images (data.val_size=0)")
    result = measure(build_measuring_trainer(saved), classifier, build_datamodule(saved), cfg.split)
    show(cfg.split, str(path), result)
    return float(result["accuracy"])
