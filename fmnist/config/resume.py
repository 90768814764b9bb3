"""What a resumed run may change, and whether it can be resumed at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from fmnist.config.keys import TrainKeys, can_change_on_resume
from fmnist.data.datamodule import EXCLUDE, ImageDataModule
from fmnist.runs.run import Run

PLACE = ("accelerator", "devices", "num_nodes", "strategy")
"""The keys of the choice trainer=... that a resumed run takes over."""
ENDS = {f"trainer.{name}" for name in ("max_epochs", "max_steps", "max_time")}
"""The keys that let a finished run continue."""


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
            known = [
                name for name in (*TrainKeys.__dataclass_fields__, "logger", "data.root") if can_change_on_resume(name)
            ]
            allowed = ", ".join(("trainer=<where>", "trainer.<key>", *known))
            raise ValueError(f"{override}: a run is resumed with its own config; only {allowed} can change")
        elif key != "resume":
            changes[key] = OmegaConf.select(cfg, key)
    return changes


def resumed_config(run: Run, changes: Mapping[str, Any]) -> DictConfig:
    """Return the config of a run with new values by key.

    Raises:
        ValueError: if another version has written it.
    """
    cfg = run.load_config()
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    check_version(cfg, run)
    return cfg


def check_version(cfg: DictConfig, run: Run) -> None:
    """Refuse the config of a run that another version has written, as far as that shows in its trainer.

    Raises:
        ValueError: naming the key that is missing.
    """
    for name in (*PLACE, "max_epochs", "max_steps"):
        if name not in (cfg.get("trainer") or {}):
            way = "; trainer=default gives it" if name in PLACE else ""
            raise ValueError(f"{run.config_file} has no trainer.{name}: it is damaged or of another version{way}")


def check_dataset(run: Run, datamodule: ImageDataModule) -> None:
    """Refuse to resume with other images than the run began with.

    Raises:
        ValueError: naming the files that differ.
    """
    known, found = run.load_record().get("dataset") or {}, datamodule.hashes
    if changed := [name for name, digest in found.items() if known.get(name, digest) != digest]:
        if EXCLUDE in changed:
            raise ValueError(f"{EXCLUDE}={datamodule.exclude}: changed since the run began: it can't be resumed")
        names = ", ".join(changed)
        raise ValueError(f"data.root={datamodule.root}: {names} changed since the run began: it can't be resumed")


def check_progress(run: Run, cfg: DictConfig, checkpoint: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse to resume where nothing is left to train, before anything in the folder is touched.

    Args:
        run: its folder.
        cfg: its config, changes included.
        checkpoint: the last one; empty where there is none.
        changes: new values by key.

    Raises:
        ValueError: naming what would let the run continue.
    """
    finished = run.status == "finished"
    if finished and not changes.keys() & ENDS:
        raise ValueError(f"{run.folder} is finished; trainer.max_epochs=N lets it continue to N epochs")
    if not checkpoint:
        return
    try:
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        done = {"max_epochs": int(epochs), "max_steps": int(checkpoint["global_step"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.folder}: its last checkpoint doesn't say how far the run has come") from error
    for name in sorted(done, key=lambda name: f"trainer.{name}" not in changes):  # first the keys that were given
        limit = cfg.trainer[name]  # other values than integers are refused with the Trainer's arguments
        if isinstance(limit, int) and 0 <= limit < done[name] + finished:
            raise ValueError(f"trainer.{name}={limit}: the run has done {done[name]} already")


def check_time(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to extend a run whose `trainer.max_time` is used up.

    Raises:
        ValueError: naming the key.
    """
    for timer in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(timer, Timer):
            timer.load_state_dict(checkpoint.get("callbacks", {}).get(timer.state_key, {}))
            if (left := timer.time_remaining()) is not None and left <= 0:
                raise ValueError("trainer.max_time: the run has used it up; a longer one, or null, lets it continue")
