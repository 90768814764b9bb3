"""Evaluate trained classifiers from their checkpoints, alone or as an ensemble."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory, keys_as_typed
from fmnist.config.restore import Restored, build_datamodule_of, restore
from fmnist.config.settings import read_settings
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.sources import check_root
from fmnist.evaluation.calibration import Calibrator, calibration_line, calibration_metrics
from fmnist.evaluation.measure import Evaluation, ensemble, log_evaluation, measure
from fmnist.evaluation.tta import TTA, TestTimeAugmentation
from fmnist.runs.latest import checkpoint_file
from fmnist.runs.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The keys of conf/evaluate.yaml, and what they may be."""

    run: str | Annotated[list[str], MinLen(1)] | None
    checkpoint: str | None
    split: Literal["val", "test"]
    tta: TTA
    data_root: str | None
    accelerator: str


@explain_out_of_memory("try accelerator=cpu, or another machine")
@keys_as_typed()
def main(cfg: DictConfig, hydra: DictConfig) -> float:  # noqa: ARG001 (every command gets it)
    """Log the result of one checkpoint, or of an ensemble of several, and return its accuracy.

    Raises:
        ValueError: if a checkpoint is missing or damaged, or several can't be evaluated on the same images.
    """
    logs.to_terminal()
    options = read_settings(Settings, cfg)
    restored = {
        file: restore(file, options.accelerator, options.data_root)
        for file in find_checkpoints(options.run, options.checkpoint)
    }
    if options.data_root is None:
        for member in restored.values():
            check_root("data_root", OmegaConf.select(member.config, "data.root"))
    datamodules = {file: build_datamodule_of(member, file) for file, member in restored.items()}
    check_images(datamodules, options.split)
    subject, datamodule = next(iter(datamodules.items()))
    for file, member in restored.items():
        dataset = member.dataset
        if dataset.classes != datamodule.dataset.classes or dataset.image_shape != datamodule.dataset.image_shape:
            raise ValueError(f"{file}: the network was trained on {dataset.name}, not on {datamodule.dataset.name}")
        if options.tta != "none":
            network = member.classifier.network
            member.classifier.network = TestTimeAugmentation(network, options.tta, dataset.black)
    evaluations = evaluate(restored, datamodule, options.split)
    if len(restored) > 1:
        for file, evaluation in zip(restored, evaluations, strict=True):
            log.info("%s of %s: accuracy %.2f%%", options.split, file, 100 * evaluation.accuracy)
    result = average(evaluations, restored, datamodule)
    notes = [f"mean of {len(restored)} runs"] if len(restored) > 1 else []
    if options.tta != "none":
        notes.append(f"test-time augmentation {options.tta}")
    log_evaluation(f"an ensemble of {len(restored)} runs" if len(restored) > 1 else str(subject), result, *notes)
    calibrator = None if notes else restored[subject].calibrator
    calibrator = calibrator or fit_calibrator(restored, datamodules)
    if calibrator is None:
        log.info("not calibrated: that takes validation images, the same ones for all runs")
    elif result.logits.isfinite().all():
        labels = datamodule.splits[options.split][1][: len(result.logits)]
        log.info("%s", calibration_line(calibrator, calibration_metrics(calibrator, result.logits, labels)))
    return result.accuracy


def evaluate(restored: Mapping[Path, Restored], datamodule: ImageDataModule, split: str) -> list[Evaluation]:
    """Return the evaluation of each network on a split."""
    evaluations = []
    for member in restored.values():
        datamodule.dataset = member.dataset  # its mean and standard deviation may be others than those of the first
        evaluations.append(measure(build_evaluation_trainer(member.config), member.classifier, datamodule, split))
    return evaluations


def average(
    evaluations: Sequence[Evaluation], restored: Mapping[Path, Restored], datamodule: ImageDataModule
) -> Evaluation:
    """Return the evaluation of the only network, or of the ensemble of several."""
    if len(evaluations) == 1:
        return evaluations[0]
    losses = [member.classifier.loss for member in restored.values()]
    return ensemble(evaluations, losses, datamodule.splits[evaluations[0].split][1])


def fit_calibrator(restored: Mapping[Path, Restored], datamodules: Mapping[Path, ImageDataModule]) -> Calibrator | None:
    """Return the calibrator of the averaged predictions; None if the runs haven't the same validation images."""
    try:
        check_images(datamodules, "val")
    except ValueError:
        return None
    datamodule = next(iter(datamodules.values()))
    result = average(evaluate(restored, datamodule, "val"), restored, datamodule)
    return Calibrator.fit(result.logits, datamodule.splits["val"][1][: len(result.logits)])


def find_checkpoints(run: str | Sequence[str] | None, checkpoint: str | None) -> list[Path]:
    """Return the checkpoints to evaluate: those of run folders, patterns of them or a list of both, or one file.

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
    """Return the run folders that match a pattern, sorted, or the name itself if it is no pattern.

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


def check_images(datamodules: Mapping[Path, ImageDataModule], split: str) -> None:
    """Refuse runs, by their checkpoint files, that have no images of a split, or not the same ones.

    Raises:
        ValueError: naming the key.
    """
    (first_file, first), *others = datamodules.items()
    if split == "val" and not all(datamodule.val_size for datamodule in datamodules.values()):
        raise ValueError("split=val: the run had no validation images (data.val_size=0)")
    for file, datamodule in others:
        keys = ["val_size", "split_seed"] if split == "val" else []
        changed = [key for key in keys if getattr(first, key) != getattr(datamodule, key)]
        if first.root != datamodule.root:
            first.prepare_data()
            datamodule.prepare_data()
            changed += ["root"] if first.hashes != datamodule.hashes else []
        if changed:
            key = changed[0]
            raise ValueError(
                f"split={split}: an ensemble needs the same images, but data.{key} is {getattr(first, key)} "
                f"in {first_file} and {getattr(datamodule, key)} in {file}"
            )
