"""The one place where a config becomes objects."""

from fmnist.config.build import build_classifier, build_datamodule, build_training
from fmnist.config.errors import one_line
from fmnist.config.instantiate import build, plain_config
from fmnist.config.restore import restore
from fmnist.config.trainer import build_evaluation_trainer, hardware_precision

__all__ = [
    "build",
    "build_classifier",
    "build_datamodule",
    "build_evaluation_trainer",
    "build_training",
    "hardware_precision",
    "one_line",
    "plain_config",
    "restore",
]
