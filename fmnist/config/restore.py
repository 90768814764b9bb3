"""A classifier again, from its checkpoint alone."""

from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from fmnist.config.build import build_classifier
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.runs import checkpoints
from fmnist.runs import untrusted as trust
from fmnist.training.classifier import Classifier


class Restored(NamedTuple):
    """What a checkpoint holds."""

    config: DictConfig
    classifier: Classifier
    dataset: DatasetInfo


def restore(file: Path, accelerator: str, data_root: str | None = None) -> Restored:
    """The config of a checkpoint's run and its classifier, with the weights of the checkpoint.

    Args:
        file: the checkpoint.
        accelerator: to be put into the config, as the run may have been on another machine.
        data_root: likewise, where it isn't the run's own.

    Raises:
        ValueError: if there is no such checkpoint, or it asks for something that can't be.
    """
    checkpoint = checkpoints.load(file)
    config = checkpoint[checkpoints.CONFIG_KEY]
    try:
        trust.check_plain(config)
    except ValueError as error:
        raise ValueError(f"{file}: its config can't be used: {error}") from error
    cfg = OmegaConf.create(config)
    for key in ("trainer", "data"):
        if not isinstance(cfg.get(key), DictConfig):
            raise ValueError(f"{file}: its config has no {key}")
    cfg.trainer.accelerator = accelerator
    if data_root is not None:
        cfg.data.root = data_root
    dataset = FASHION_MNIST  # which an older version knows alone
    if checkpoints.DATASET_KEY in checkpoint:
        try:
            dataset = DatasetInfo.from_dict(checkpoint[checkpoints.DATASET_KEY])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    classifier = build_classifier(cfg, dataset, checkpoint)
    checkpoints.restore_network(classifier.network, checkpoint)
    return Restored(cfg, classifier, dataset)
