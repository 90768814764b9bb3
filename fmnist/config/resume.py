"""What a resumed run may change, and whether it can be resumed at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fmnist.config.keys import TrainKeys, can_change_on_resume
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.runs.run import Run

PLACE = ("accelerator", "devices", "num_nodes", "strategy")
"""The keys of the choice trainer=... that a resumed run takes over."""


def changes_of(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values, by key, that the overrides change in the config of a resumed run.

    Raises:
        ValueError: if they would make another run of it.
    """
    changes: dict[str, Any] = {}
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key == "trainer":  # the choice of a place, as trainer=ddp_cpu
            changes |= {f"trainer.{name}": cfg.trainer[name] for name in PLACE}
        elif key != "resume" and not can_change_on_resume(key):
            known = [name for name in (*TrainKeys.__dataclass_fields__, "data.root") if can_change_on_resume(name)]
            allowed = ", ".join(("trainer=<where>", "trainer.<key>", *known))
            raise ValueError(f"{override}: a run is resumed with its own config; only {allowed} can change")
        elif key != "resume":
            changes[key] = OmegaConf.select(cfg, key)
    return changes


def check_version(cfg: DictConfig, run: Run) -> None:
    """Refuse the config of a run that another version has written, as far as that shows in its trainer.

    Raises:
        ValueError: naming the key that is missing.
    """
    for name in (*PLACE, "max_epochs", "max_steps"):
        if name not in (cfg.get("trainer") or {}):
            way = "; trainer=default gives it" if name in PLACE else ""
            raise ValueError(f"{run.config_file} has no trainer.{name}: it is damaged or of another version{way}")


def check_dataset(run: Run, datamodule: FashionMNISTDataModule) -> None:
    """Refuse to resume with other images than the run began with.

    Raises:
        ValueError: naming the files that differ.
    """
    known, found = run.load_record().get("dataset") or {}, datamodule.hashes
    if changed := [name for name, digest in found.items() if known.get(name, digest) != digest]:
        names = ", ".join(changed)
        raise ValueError(f"data.root={datamodule.root}: {names} changed since the run began: it can't be resumed")


def check_progress(run: Run, cfg: DictConfig, step: int, changes: Mapping[str, Any]) -> None:
    """Refuse to resume where nothing is left to train, before anything in the folder is touched.

    Args:
        run: its folder.
        cfg: its config, changes included.
        step: of the last checkpoint.
        changes: new values by key.

    Raises:
        ValueError: naming what would let the run continue.
    """
    done = {"max_epochs": run.epochs, "max_steps": step}
    for name, steps in done.items():
        limit = cfg.trainer[name]
        if isinstance(limit, int) and 0 <= limit < steps:  # other values are refused with the Trainer's arguments
            raise ValueError(f"trainer.{name}={limit}: the run has done {steps} already")
    if run.status == "finished" and not changes.keys() & {f"trainer.{name}" for name in (*done, "max_time")}:
        raise ValueError(f"{run.folder} is finished; trainer.max_epochs=N lets it continue to N epochs")
