"""Lightning's loggers of W&B, MLflow, Comet and CSV as the runs of this project use them.

Where a tracker is and who is allowed to write there comes from the environment alone, by each package's own variables:
a config holds no address and no key, so that none reaches a run folder, and none is followed from somebody else's.
"""

import csv
import importlib.util
import itertools
import logging
import netrc
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from annotated_types import MinLen
from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, WandbLogger

from fmnist.config.keys import flat_settings

Name = Annotated[str, MinLen(1)]
MLFLOW_BATCH = 500  # metrics in one request, of which a server takes 1,000
MLFLOW_VALUE = 250  # characters of a parameter that Lightning keeps
QUICK = {
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


class Csv(TrackerLogger, CSVLogger):
    """Lightning's table of every logged value, csv/metrics.csv in the run folder."""

    def __init__(self, place: Place) -> None:
        folder = place.folder / "csv"
        rows = list(_rows(folder / "metrics.csv", place.first_step))
        shutil.rmtree(folder, ignore_errors=True)  # in which Lightning would write no second time
        super().__init__(place.folder, name=folder.name, version="", flush_logs_every_n_steps=1)
        self.experiment.metrics = rows

    @property
    def tracker_id(self) -> str | None:
        return None


class Wandb(TrackerLogger, WandbLogger):
    """Weights & Biases.

    Args:
        place: the run's.
        project: where the run is filed.
        entity: the user or team; None takes the account's own.
        tags: of the run.
        notes: on the run.
        offline: whether it writes into the run folder alone; None does so where no key is known.
    """

    package, extra = "wandb", "wandb"

    def __init__(
        self,
        place: Place,
        project: Name,
        entity: Name | None = None,
        tags: Sequence[Name] = (),
        notes: str | None = None,
        offline: bool | None = None,
    ) -> None:
        if offline is None and not os.environ.get("WANDB_MODE"):
            offline = self.is_local()
        settings: dict[str, Any] = {
            "silent": True,
            "console": "off",  # otherwise it would read what the progress bar prints
            "symlink": False,
            "init_timeout": 30,  # seconds
        }
        super().__init__(
            name=place.folder.name,
            id=place.id or uuid.uuid4().hex[:8],
            project=project,
            save_dir=str(place.folder),
            entity=entity,
            group=place.group,
            tags=list(tags),
            notes=notes,
            settings=settings,
            mode={True: "offline", False: "online", None: None}[offline],
            reinit="create_new",
        )

    @classmethod
    def is_local(cls, offline: bool | None = None, **_: Any) -> bool:
        wanted = {True: "offline", False: "online", None: os.environ.get("WANDB_MODE")}[offline]
        if wanted == "online" and not _wandb_key():
            raise ValueError("no key is known: set WANDB_API_KEY, call `wandb login`, or leave offline=null")
        return wanted not in (None, "online") or not _wandb_key()

    def begin(self) -> None:
        import wandb

        del self._wandb_init["anonymous"]  # of which W&B says that it has no effect
        # Not as Lightning does it, which goes on in any run that this process has begun before.
        self._experiment = wandb.init(**self._wandb_init)
        self._experiment.define_metric("trainer/global_step")
        self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self._remove_links()

    def _remove_links(self) -> None:
        """Remove the links that W&B makes to its logs elsewhere: a run folder with links isn't resumed."""
        for path in Path(str(self.save_dir), "wandb").rglob("*"):
            if path.is_symlink():
                path.unlink()

    def log_settings(self, config: Mapping[str, Any]) -> None:
        self.log_hyperparams(dict(config))  # it shows nested keys with dots

    def log_file(self, file: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"{file.stem}-{self.tracker_id}", type=file.stem)
        artifact.add_file(str(file))
        self.experiment.log_artifact(artifact)

    def end(self, status: str | None) -> None:
        self.experiment.finish(exit_code=0 if status in ("finished", None) else 1)
        self._remove_links()


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


def mlflow_name(name: str) -> str:
    """Return a metric's name in the characters that MLflow takes, and as a path that it takes."""
    return posixpath.normpath(re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII)).lstrip("/.")


def _rows(file: Path, first_step: int | None) -> Iterator[dict[str, str]]:
    """Yield the rows of a table before the step at which the training is resumed."""
    if not file.is_file():
        return
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if first_step is None or int(row["step"] or 0) < first_step:
                yield {name: value for name, value in row.items() if value}


def _wandb_key() -> bool:
    """Return whether W&B finds a key: a variable, or that of `wandb login` in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _comet_key() -> bool:
    """Return whether Comet finds a key: a variable, or that of `comet login` in a file."""
    if os.environ.get("COMET_API_KEY"):
        return True
    files = [Path(os.environ.get("COMET_CONFIG") or "~/.comet.config").expanduser(), Path(".comet.config")]
    return any(file.is_file() and "api_key" in file.read_text(errors="replace") for file in files)
