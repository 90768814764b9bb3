"""From a checkpoint to a classifier."""

from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from fmnist.config.build import build_classifier
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.runs import checkpoints, untrusted
from fmnist.runs.moved_targets import update_targets
from fmnist.training.classifier import Classifier


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    config: DictConfig
    """Config of the run."""
    classifier: Classifier
    """Classifier with the weights of the checkpoint."""
    dataset: DatasetInfo
    """Dataset that it was trained on."""


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
    if data_root is not None:
        cfg.data.root = data_root
    try:  # older versions knew one dataset, and named none
        described = checkpoints.DATASET_KEY in checkpoint
        dataset = DatasetInfo.from_dict(checkpoint[checkpoints.DATASET_KEY]) if described else FASHION_MNIST
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    classifier = build_classifier(cfg, dataset, checkpoint)
    checkpoints.restore_network(classifier.network, checkpoint)
    return Restored(cfg, classifier, dataset)
