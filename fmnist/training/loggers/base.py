"""What the trackers' loggers have in common."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen
from lightning.pytorch.loggers import Logger

from fmnist.config.keys import flat_settings

Name = Annotated[str, MinLen(1)]
VARIABLES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds, instead of 120
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # instead of 7, which take some minutes
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it reports to its makers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # which may hold a password
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "COMET_LOGGING_CONSOLE": "critical",
}
"""Variables of the trackers' packages, unless the user has set them."""


@dataclass(frozen=True)
class Place:
    """What a tracker is told about a run."""

    folder: Path
    outputs: Path
    """The folder of all runs."""
    id: str | None = None
    """The tracker's own name of the run, where it has begun there already."""
    first_step: int | None = None
    """The optimizer step at which a resumed training begins."""

    @property
    def group(self) -> str | None:
        """The sweep or the study that the run is a part of."""
        if not self.folder.is_relative_to(self.outputs):
            return None
        parts = self.folder.relative_to(self.outputs).parts
        return parts[1] if len(parts) > 2 else None


class TrackerLogger(Logger):
    """One of Lightning's loggers that can also begin a run, continue it, keep a file and end it.

    The constructor of a class below it takes a `Place` first, then the keys of its file in conf/logger/. It may take
    long, or fail: it is called in a thread of its own.
    """

    package: ClassVar[str | None] = None
    """What has to be installed, as Python imports it."""
    extra: ClassVar[str] = ""
    """The name of the package among the project's optional ones."""

    @classmethod
    def is_local(cls, **_: Any) -> bool:
        """Return whether the tracker keeps its files on this machine, by the keys of its config.

        Raises:
            ValueError: if a server is asked for, and no key for it is known.
        """
        return True

    @classmethod
    def check_package(cls, key: str) -> None:
        """Raise a ValueError that says how to install the package, if it is missing."""
        if cls.package is None:
            return
        spec = importlib.util.find_spec(cls.package)
        if spec is None or spec.origin is None:  # a folder that happens to have the name
            install = f'`make extras` or pip install "fmnist[{cls.extra}]" installs it'
            raise ValueError(f"{key}: the package {cls.package} is missing; {install}")

    @property
    def tracker_id(self) -> str | None:
        """The tracker's own name of the run, by which it is continued."""
        return None if self.version is None else str(self.version)

    def begin(self) -> None:
        """Begin the run, or continue it, where the constructor hasn't done so."""

    def log_settings(self, config: Mapping[str, Any]) -> None:
        """Log the resolved config of the run, by dotted key."""
        self.log_hyperparams(flat_settings(config))

    def log_file(self, file: Path) -> None:
        """Keep a file with the run."""

    def end(self, status: str | None) -> None:
        """Write what is left, and end the run.

        Args:
            status: of the run: finished, interrupted, pruned or failed; None where another process continues it.
        """
        self.finalize("success" if status == "finished" else "failed")
