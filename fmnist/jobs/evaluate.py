"""Measure a trained classifier again, from its checkpoint alone."""

from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from fmnist import checkpoints, logs
from fmnist.arguments import check_arguments
from fmnist.build import build_classifier, build_datamodule, build_measuring_trainer
from fmnist.evaluation import measure, show
from fmnist.runs import open_run


def settings(
    run: str | None, checkpoint: str | None, split: Literal["val", "test"], data_root: str | None, accelerator: str
) -> None:
    """The keys of conf/evaluate.yaml, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> float:  # noqa: ARG001 (what every job gets)
    """Shows the result of a checkpoint on a split and returns its accuracy.

    Raises:
        ValueError: if there is no such run or checkpoint, or it can't be read.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items()})
    path = checkpoint_file(cfg)
    checkpoint = checkpoints.load(path)
    saved = OmegaConf.create(checkpoint[checkpoints.CONFIG_KEY])
    saved.trainer.accelerator = cfg.accelerator
    if cfg.data_root is not None:
        saved.data.root = cfg.data_root
    if cfg.split == "val" and not saved.data.val_size:
        raise ValueError("split=val: the run had no validation images (data.val_size=0)")

    classifier = build_classifier(saved)
    checkpoints.restore_network(classifier.network, checkpoint)
    datamodule = build_datamodule(saved)
    result = measure(build_measuring_trainer(saved), classifier, datamodule, cfg.split)
    show(cfg.split, str(path), result)
    return float(result["accuracy"])


def checkpoint_file(cfg: DictConfig) -> Path:
    """What `run` or `checkpoint` names."""
    if (cfg.run is None) == (cfg.checkpoint is None):
        raise ValueError("give either run=<run folder> or checkpoint=<file>")
    if cfg.run is not None:
        return open_run("run", cfg.run).chosen_checkpoint
    return Path(cfg.checkpoint)
