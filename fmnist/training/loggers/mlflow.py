"""MLflow."""

import contextlib
import itertools
import logging
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger

from fmnist.config.keys import flat_settings
from fmnist.training.loggers.base import Name, Place, TrackerLogger

MLFLOW_BATCH = 500  # metrics in one request, of which a server takes 1,000
MLFLOW_VALUE = 250  # characters of a parameter that Lightning keeps


class Mlflow(TrackerLogger, MLFlowLogger):
    """MLflow: the server of MLFLOW_TRACKING_URI, or else the file mlflow.db in the folder of all runs.

    Args:
        place: the run's.
        experiment_name: where the run is filed.
        tags: of the run, by name.
    """

    package, extra = "mlflow", "mlflow"
    STATUS: ClassVar = {"finished": "FINISHED", "interrupted": "KILLED", "pruned": "KILLED"}

    def __init__(self, place: Place, experiment_name: Name, tags: dict[str, str] | None = None) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of each try
        before = os.environ.get("MLFLOW_TRACKING_URI")
        # MLflow 3.14 and later refuse a folder of files, Lightning's default.
        local = f"sqlite:///{place.outputs / 'mlflow.db'}?timeout=60"
        if not before:
            place.outputs.mkdir(parents=True, exist_ok=True)
        known = {"folder": str(place.folder), **({"sweep": place.group} if place.group else {}), **(tags or {})}
        # MLflow makes the tables of a new file, in which two processes would fail.
        with contextlib.nullcontext() if before else FileLock(place.outputs / ".mlflow.lock"):
            super().__init__(
                experiment_name=experiment_name,
                run_name=place.folder.name,
                tracking_uri=before or local,
                tags=known,
                artifact_location=None if before else (place.outputs / "mlartifacts").as_uri(),
            )
            self._continue(place.id)
            self._make_experiment()
            _ = self.experiment
        # MLflow has set it for all that follows in this process, as for a run with another folder of all runs.
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)

    def _continue(self, run_id: str | None) -> None:
        """Let the run with this id go on, if the store has it."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return
        try:
            self._mlflow_client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            self._run_id = run_id

    def _make_experiment(self) -> None:
        """Make the experiment where it is missing: Lightning would warn, and fail where another process makes it."""
        from mlflow.exceptions import MlflowException

        client, name = self._mlflow_client, self._experiment_name
        if client.get_experiment_by_name(name) is None:
            try:
                client.create_experiment(name, artifact_location=self._artifact_location)
            except MlflowException:
                if client.get_experiment_by_name(name) is None:
                    raise

    @classmethod
    def is_local(cls, **_: Any) -> bool:
        return urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).scheme in ("", "sqlite", "file")

    def log_settings(self, config: Mapping[str, Any]) -> None:
        settings = flat_settings(config)
        known = self.experiment.get_run(self._run_id).data.params
        for key in settings.keys() & known.keys():
            value = str(settings.pop(key))[:MLFLOW_VALUE]
            if value != known[key]:  # changed on resuming, while a parameter has one value for ever
                self.experiment.set_tag(self._run_id, f"resumed.{key}", value)
        self.log_hyperparams(settings)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        named = iter([(mlflow_name(name), value) for name, value in metrics.items()])
        while batch := dict(itertools.islice(named, MLFLOW_BATCH)):
            super().log_metrics(batch, step)

    def log_file(self, file: Path) -> None:
        self.experiment.log_artifact(self._run_id, str(file))

    def end(self, status: str | None) -> None:
        if status is not None:
            self.finalize(self.STATUS.get(status, "FAILED"))


def mlflow_name(name: str) -> str:
    """Return a metric's name in the characters that MLflow takes, and as a path that it takes."""
    return posixpath.normpath(re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII)).lstrip("/.")
