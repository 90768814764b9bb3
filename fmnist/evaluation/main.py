"""Evaluate trained classifiers, alone or as an ensemble, from their checkpoints."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.memory import explain_out_of_memory
from fmnist.config.objects import build_datamodule, build_evaluation_trainer, restore
from fmnist.config.settings import read_settings
from fmnist.data.sources import check_root
from fmnist.evaluation.measure import ensemble, log_evaluation, measure
from fmnist.evaluation.tta import TTA, TestTimeAugmentation
from fmnist.runs.run import Run, checkpoint_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The keys of conf/evaluate.yaml, and what they may be."""

    run: str | Annotated[list[str], MinLen(1)] | None
    checkpoint: str | None
    split: Literal["val", "test"]
    tta: Literal["none", "flip", "flip_shift"]
    data_root: str | None
    accelerator: str


settings = Settings


@explain_out_of_memory("try accelerator=cpu, or another machine")
def main(cfg: DictConfig, hydra: DictConfig) -> float:  # noqa: ARG001 (every command gets it)
    """Log the result of one checkpoint, or of an ensemble of several, and return its accuracy.

    Raises:
        ValueError: if a run or checkpoint is missing or damaged, or several can't be evaluated on the same images.
    """
    logs.to_terminal()
    options = read_settings(Settings, cfg)
    files = find_checkpoints(options.run, options.checkpoint)
    networks = {file: restore(file, options.accelerator, options.data_root) for file in files}
    configs = {file: network.config for file, network in networks.items()}
    check_images(configs, options)
    datamodule = build_datamodule(configs[files[0]])
    evaluations = []
    for file, (config, classifier, dataset) in networks.items():
        if options.tta != "none":
            classifier.network = TestTimeAugmentation(classifier.network, TTA[options.tta], dataset.black)
        evaluations.append(measure(build_evaluation_trainer(config), classifier, datamodule, options.split))
        if len(files) > 1:
            log.info("%s of %s: accuracy %.2f%%", options.split, file, 100 * evaluations[-1].accuracy)
    notes = [f"test-time augmentation {options.tta}"] if options.tta != "none" else []
    if len(files) == 1:
        log_evaluation(str(files[0]), evaluations[0], *notes)
        return evaluations[0].accuracy
    losses = [network.classifier.loss for network in networks.values()]
    result = ensemble(evaluations, losses, datamodule.splits[options.split][1])
    log_evaluation(f"an ensemble of {len(files)} runs", result, f"mean of {len(files)} runs", *notes)
    return result.accuracy


def find_checkpoints(run: str | Sequence[str] | None, checkpoint: str | None) -> list[Path]:
    """Return the checkpoint files to evaluate.

    Args:
        run: a run folder, a pattern, or a list of both.
        checkpoint: or one checkpoint file.

    Raises:
        ValueError: if there is no such run, or one is given twice.
    """
    if run is None:
        return [checkpoint_file(run, checkpoint)]
    files: dict[Path, Path] = {}
    for folder in (folder for name in ([run] if isinstance(run, str) else run) for folder in expand_pattern(name)):
        file = checkpoint_file(folder, checkpoint)
        if file.resolve() in files:
            raise ValueError(f"run={folder}: given twice")
        files[file.resolve()] = file
    return list(files.values())


def expand_pattern(name: str) -> list[str]:
    """Return the run folders that match a pattern, sorted; a name without `*` unchanged.

    Raises:
        ValueError: if no run folder matches.
    """
    if "*" not in name or Path(name).exists():
        return [name]
    folders = sorted(glob(name))  # noqa: PTH207 (absolute, too)
    found = [folder for folder in folders if Run(Path(folder)).config_file.is_file()]
    if not found:
        raise ValueError(f"run={name}: no run folder matches")
    return found


def check_images(configs: Mapping[Path, DictConfig], options: Settings) -> None:
    """Refuse runs that can't be evaluated on the same images.

    Args:
        configs: config of each run, by its checkpoint file.
        options: settings of the command.

    Raises:
        ValueError: naming the key, the files and both values.
    """
    for config in configs.values():
        if options.data_root is None:
            check_root("data_root", OmegaConf.select(config, "data.root"))
        if options.split == "val" and not config.data.val_size:
            raise ValueError("split=val: the run had no validation images (data.val_size=0)")
    (first_file, first), *others = configs.items()
    for file, config in others:
        keys = ["data.val_size", "data.split_seed"] if options.split == "val" else []
        changed = [key for key in keys if OmegaConf.select(first, key) != OmegaConf.select(config, key)]
        if first.data.root != config.data.root and data_hashes(first) != data_hashes(config):
            changed.append("data.root")
        for key in changed:
            values = [OmegaConf.select(saved, key) for saved in (first, config)]
            raise ValueError(
                f"split={options.split}: {key} is {values[0]} in {first_file}, and {values[1]} in {file}; "
                "an ensemble needs the same images"
            )


def data_hashes(config: DictConfig) -> dict[str, str]:
    """Return the SHA-256 of a run's data files by name."""
    datamodule = build_datamodule(config)
    datamodule.prepare_data()
    return datamodule.hashes
