"""Weights & Biases."""

import netrc
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger

from fmnist.training.loggers.base import Name, Place, TrackerLogger


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
        # Not as Lightning does it, which resumes any run that this process has begun before.
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


def _wandb_key() -> bool:
    """Return whether W&B finds a key: a variable, or that of `wandb login` in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
