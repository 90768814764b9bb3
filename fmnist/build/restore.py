"""A classifier again, from its checkpoint alone."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fmnist import checkpoints, trust
from fmnist.build.session import build_classifier
from fmnist.classifier import Classifier


def restore(file: Path, accelerator: str, data_root: str | None = None) -> tuple[DictConfig, Classifier]:
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
    classifier = build_classifier(cfg, checkpoint)
    checkpoints.restore_network(classifier.network, checkpoint)
    return cfg, classifier
