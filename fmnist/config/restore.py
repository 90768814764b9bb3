"""From a checkpoint to a classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from fmnist.config.build import build_classifier, build_datamodule
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.evaluation.calibration import Calibrator
from fmnist.evaluation.unfamiliar import Detector
from fmnist.runs import checkpoints, untrusted
from fmnist.runs.moved_targets import update_targets
from fmnist.training.classifier import Classifier

SHOWN = 12  # classes that a message names


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    config: DictConfig
    """Config of the run."""
    classifier: Classifier
    """Classifier with the weights of the checkpoint."""
    dataset: DatasetInfo
    """Dataset that it was trained on."""
    calibrator: Calibrator | None
    """Calibration of its probabilities; None where the training hasn't ended, or had no validation images."""
    detector: Detector | None
    """What tells images unlike the training images; None in the same cases, and in older runs."""


def build_datamodule_of(restored: Restored, file: Path) -> ImageDataModule:
    """Build the data module of a checkpoint, which normalises as in its training.

    Args:
        restored: the contents of the checkpoint.
        file: the checkpoint, for messages.

    Raises:
        ValueError: if the images are of another dataset.
    """
    datamodule = build_datamodule(restored.config)
    known, found = restored.dataset, datamodule.dataset
    for fact in ("classes", "image_shape"):
        if (trained := getattr(known, fact)) != (here := getattr(found, fact)):
            kind = fact.replace("_", " ")
            raise ValueError(
                f"{file}: the network was trained on {known.name} with the {kind} {_short(trained)}, but {found.name} "
                f"has {_short(here)}"
            )
    datamodule.dataset = known
    return datamodule


def _short(values: Sequence[object]) -> str:
    """Return the values, the first ones if there are many."""
    return ", ".join([*map(str, values[:SHOWN]), *(["..."] if len(values) > SHOWN else [])])


def restore(file: Path, accelerator: str = "auto", data_root: str | None = None) -> Restored:
    """Return the config, the classifier and the dataset of a checkpoint. Nothing in the file is executed.

    Args:
        file: checkpoint.
        accelerator: replaces the one in the config, as the run may be from another machine.
        data_root: replaces the data folder in the config, unless it is None.

    Raises:
        ValueError: if there is no such checkpoint, it is damaged, or its config can't be built.
    """
    checkpoint = checkpoints.load(file)
    config = checkpoint[checkpoints.CONFIG_KEY]
    try:
        untrusted.check_plain(config)
    except ValueError as error:
        raise ValueError(f"{file}: its config can't be used: {error}") from error
    cfg = OmegaConf.create(update_targets(config))
    for key in ("trainer", "data"):
        if not isinstance(cfg.get(key), DictConfig):
            raise ValueError(f"{file}: its config has no {key}")
    cfg.trainer.accelerator = accelerator
    if "exclude" in cfg.data:
        cfg.data.exclude = None  # it changes training images alone, and its file may be on another machine
    if data_root is not None:
        cfg.data.root = data_root
    try:  # older versions knew one dataset, and named none
        described = checkpoints.DATASET_KEY in checkpoint
        dataset = DatasetInfo.from_dict(checkpoint[checkpoints.DATASET_KEY]) if described else FASHION_MNIST
        kept = checkpoint.get(checkpoints.CALIBRATION_KEY)
        calibrator = None if kept is None else Calibrator.from_dict(kept)
        kept = checkpoint.get(checkpoints.DETECTOR_KEY)
        detector = None if kept is None else Detector.from_dict(kept)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    classifier = build_classifier(cfg, dataset, checkpoint)
    checkpoints.restore_network(classifier.network, checkpoint)
    return Restored(cfg, classifier, dataset, calibrator, detector)
