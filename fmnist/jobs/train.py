"""Train a classifier, choose its checkpoint and test it; or go on with a run."""

import logging
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist import checkpoints, logs, record
from fmnist.arguments import check_arguments
from fmnist.build import build_session
from fmnist.runs import new_run, open_run
from fmnist.training import train

log = logging.getLogger(__name__)


def settings(
    name: str, seed: Annotated[int, Ge(0)], monitor: str, test: bool, outputs: str, resume: str | None
) -> None:
    """The keys of conf/train.yaml that belong to no group, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> float | None:
    """Trains as the config says; returns the monitored metric of the chosen checkpoint, for sweeps.

    Args:
        cfg: as conf/train.yaml composes it.
        hydra: Hydra's own config: the overrides, and the folder of a sweep's job.

    Raises:
        ValueError: if the config asks for something that can't be. A new run then leaves no folder behind.
    """
    logs.to_terminal()
    check_arguments("", settings, {str(key): value for key, value in cfg.items() if not isinstance(value, DictConfig)})
    overrides = list(hydra.overrides.task)
    if cfg.resume is not None:
        return resume(cfg, overrides)
    folder = Path(hydra.runtime.output_dir) if hydra.mode == RunMode.MULTIRUN else None
    run = new_run(Path(cfg.outputs), cfg.name, folder)
    with logs.to_file(run.log_file):
        try:
            session = build_session(cfg, run)
            session.datamodule.prepare_data()
            session.datamodule.setup()
        except BaseException:
            run.discard()
            raise
        run.update_record(**record.environment(), overrides=overrides, start=record.now())
        return train(session)


def resume(cfg: DictConfig, overrides: list[str]) -> float | None:
    """Goes on with the run in the folder `cfg.resume` from its last checkpoint, with its own config.

    Raises:
        ValueError: if it isn't a run that can go on, or the overrides would make another run of it.
    """
    run = open_run("resume", cfg.resume)
    saved = run.load_config()
    epochs = saved.trainer.max_epochs
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key == "test" or key.startswith("trainer."):
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
        elif key != "resume":
            raise ValueError(f"{override}: a run goes on with its own config; only trainer.<key> and test can change")
    checkpoint = checkpoints.load(run.last_checkpoint)
    if saved.trainer.max_epochs == epochs and run.status == "finished":
        raise ValueError(f"resume={cfg.resume}: the run is finished; trainer.max_epochs=N lets it go on to N epochs")
    with logs.to_file(run.log_file):
        session = build_session(saved, run, first_step=checkpoint["global_step"])
        session.metrics = run.load_metrics()
        session.datamodule.prepare_data()
        session.datamodule.setup()
        run.update_record(resumed=[*run.load_record().get("resumed", []), record.now()])
        log.info("going on in %s from step %d", run.folder, checkpoint["global_step"])
        return train(session, run.last_checkpoint)
