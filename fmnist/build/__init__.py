"""The one place where a config becomes objects."""

from fmnist.build.nodes import build, one_line, plain_config
from fmnist.build.restore import restore
from fmnist.build.session import build_classifier, build_datamodule, build_session
from fmnist.build.trainer import build_measuring_trainer, hardware_precision

__all__ = [
    "build",
    "build_classifier",
    "build_datamodule",
    "build_measuring_trainer",
    "build_session",
    "hardware_precision",
    "one_line",
    "plain_config",
    "restore",
]
