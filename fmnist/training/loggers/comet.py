"""Comet."""

import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CometLogger

from fmnist.training.loggers.base import Name, Place, TrackerLogger


class Comet(TrackerLogger, CometLogger):
    """Comet.

    Args:
        place: the run's.
        project: where the run is filed.
        workspace: None takes the account's own.
        tags: of the run.
        online: whether it writes to the server; false writes an archive into the run folder; None does so where no key
            is known.
    """

    package, extra = "comet_ml", "comet"

    def __init__(
        self,
        place: Place,
        project: Name,
        workspace: Name | None = None,
        tags: Sequence[Name] = (),
        online: bool | None = None,
    ) -> None:
        logging.getLogger("comet_ml").setLevel(logging.CRITICAL)  # it explains itself at length
        super().__init__(
            workspace=workspace,
            project=project,
            experiment_key=place.id or uuid.uuid4().hex,
            mode="get_or_create",
            online=not self.is_local(online=online),
            name=place.folder.name,
            tags=[*tags, *([place.group] if place.group else [])],
            offline_directory=str(place.folder / "comet"),
            display_summary_level=0,
            # The run's record has all of it, and none of what a working folder may hold besides.
            log_code=False,
            log_git_metadata=False,
            log_git_patch=False,
            log_env_details=False,
            parse_args=False,
            auto_output_logging=False,
        )

    def _create_experiment(self) -> None:
        import comet_ml

        # Lightning 2.6 disables an experiment that is offline, which then keeps nothing.
        self._comet_config = comet_ml.ExperimentConfig(**self._kwargs)
        super()._create_experiment()

    @classmethod
    def is_local(cls, online: bool | None = None, **_: Any) -> bool:
        if online and not _comet_key():
            raise ValueError("no key is known: set COMET_API_KEY, call `comet login`, or leave online=null")
        return not (_comet_key() if online is None else online)

    def log_file(self, file: Path) -> None:
        self.experiment.log_asset(str(file), file_name=file.name)

    def end(self, status: str | None) -> None:
        if status is not None:
            self.experiment.log_other("status", status)
        self.experiment.end()


def _comet_key() -> bool:
    """Return whether Comet finds a key: a variable, or that of `comet login` in a file."""
    if os.environ.get("COMET_API_KEY"):
        return True
    files = [Path(os.environ.get("COMET_CONFIG") or "~/.comet.config").expanduser(), Path(".comet.config")]
    return any(file.is_file() and "api_key" in file.read_text(errors="replace") for file in files)
