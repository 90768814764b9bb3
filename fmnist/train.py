"""Train a classifier, choose its checkpoint and test it; or go on with a run."""

import inspect
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory
from fmnist.config.keys import MAX_SEED
from fmnist.config.objects import build_training
from fmnist.config.validation import check_arguments
from fmnist.data.sources import check_root
from fmnist.runs import checkpoints
from fmnist.runs import provenance as record
from fmnist.runs import untrusted as trust
from fmnist.runs.run import Run, claim_run, new_run, open_run
from fmnist.training.callbacks import TrainingDiverged
from fmnist.training.callbacks.regular_checkpoint import Minutes, Steps
from fmnist.training.ranks.group import Ranks
from fmnist.training.ranks.group import entered as ranks_entered
from fmnist.training.ranks.place import check_sweep
from fmnist.training.train import Training, follow, set_up, train

log = logging.getLogger(__name__)

CHANGEABLE = (
    "data.root",
    "test",
    "report",
    "stop_on_nan",
    "cuda_graph",
    "checkpoint_every_n_steps",
    "checkpoint_every_minutes",
)
"""What else of a resumed run's config."""
PLACE = ("accelerator", "devices", "num_nodes", "strategy")  # what of a choice trainer=... a resumed run takes
KEPT = ("parameters", "untrained/accuracy")  # of a resumed run's metrics.json: the rest is measured again


def settings(
    name: str,
    seed: Annotated[int, Ge(0), Le(MAX_SEED)],
    monitor: str,
    test: bool,
    report: bool,
    outputs: str,
    compile: bool,
    cuda_graph: bool,
    checkpoint_every_n_steps: Steps | None,
    checkpoint_every_minutes: Minutes | None,
    stop_on_nan: bool,
    resume: str | None,
) -> None:
    """The keys of conf/train.yaml that belong to no group, and what they may be."""


@explain_out_of_memory("try a smaller network")
def main(cfg: DictConfig, hydra: DictConfig) -> float | None:
    """Trains as the config says; returns the monitored metric of the chosen checkpoint, for sweeps.

    Args:
        cfg: as conf/train.yaml composes it.
        hydra: Hydra's own config: the overrides, and the folder of a sweep's job.

    Raises:
        ValueError: if the config asks for something that can't be. A new run then leaves no folder behind.
    """
    with ranks_entered() as ranks:
        logs.to_terminal(errors_only=not ranks.first)
        return begin(cfg, hydra, ranks) if ranks.first else join(ranks)


def begin(cfg: DictConfig, hydra: DictConfig, ranks: Ranks) -> float | None:
    """What `main` does, in the process that speaks and writes."""
    check_settings(cfg)
    overrides = list(hydra.overrides.task)
    if cfg.resume is not None:
        return resume(cfg, overrides, ranks)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    if in_sweep:
        folder = Path(hydra.runtime.output_dir)
        if Run(folder).can_resume and can_go_on(Run(folder)):
            return go_on(Run(folder), overrides, ranks)
        run = claim_run(folder)
    else:
        run = new_run(Path(cfg.outputs), cfg.name)
    with run.locked(), logs.to_file(run.log_file):
        try:
            session = build_training(cfg, run)
            if in_sweep:
                check_sweep(session.trainer.world_size)
            set_up(session)
            session.ranks = ranks
            choices = {group: option for group, option in hydra.runtime.choices.items() if option and "/" not in group}
            run.update_record(**record.environment(), overrides=overrides, choices=choices, start=record.now())
            ranks.start(session.trainer.world_size)
        except BaseException:
            run.discard()
            raise
        try:
            return train(session)
        except TrainingDiverged:
            raise  # its curves show why
        except ValueError:
            if not run.last_checkpoint.exists():  # nothing was trained
                run.discard()
            raise


def join(ranks: Ranks) -> float | None:
    """Takes part in a training whose first process is another one, and knows no result."""
    task = ranks.receive()
    try:
        session = build_training(OmegaConf.create(task["config"]), Run(Path(task["folder"])))
        set_up(session)
    except ValueError as error:
        ranks.agree(str(error))
    ranks.agree(None)
    session.ranks = ranks
    follow(session, Path(task["checkpoint"]) if task["checkpoint"] else None)
    return None


def resume(cfg: DictConfig, overrides: list[str], ranks: Ranks) -> float | None:
    """Goes on with the run in the folder `cfg.resume` from its last checkpoint, with its own config.

    Raises:
        ValueError: if it isn't a run that can go on, or the overrides would make another run of it.
    """
    run = open_run("resume", cfg.resume)
    trust.check_links(run.folder)
    changes = {}
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key in CHANGEABLE or key.startswith("trainer."):
            changes[key] = OmegaConf.select(cfg, key)
        elif key == "trainer":  # the choice of a place, as trainer=ddp_cpu
            changes |= {f"trainer.{name}": cfg.trainer[name] for name in PLACE}
        elif key != "resume":
            known = ", ".join(("trainer=<where>", "trainer.<key>", *CHANGEABLE))
            raise ValueError(f"{override}: a run goes on with its own config; all that can change is {known}")
    return go_on(run, overrides, ranks, changes)


def go_on(run: Run, overrides: Sequence[str], ranks: Ranks, changes: Mapping[str, Any] | None = None) -> float | None:
    """Trains on from the run's last checkpoint; from the beginning where it was cut off before there was one.

    Args:
        run: its folder, with a config.
        overrides: what was typed, for the record.
        ranks: the processes that go on.
        changes: new values by key of its config.

    Raises:
        ValueError: if nothing is left to train.
    """
    changes = changes or {}
    saved = run.load_config()
    for key, value in changes.items():
        OmegaConf.update(saved, key, value, force_add=True)
    check_version(saved, run)
    check_settings(saved)
    if "data.root" not in changes:
        check_root("data.root", OmegaConf.select(saved, "data.root"))
    with run.locked(), logs.to_file(run.log_file):
        file, checkpoint = newest_checkpoint(run) or (None, {"global_step": 0})
        check_progress(saved, checkpoint, run, changes.keys())
        session = build_training(saved, run, first_step=checkpoint["global_step"])
        session.metrics = {name: run.load_metrics()[name] for name in KEPT if name in run.load_metrics()}
        set_up(session)
        check_dataset(run, session)
        session.ranks = ranks
        ranks.start(session.trainer.world_size)
        run.remove_temp_files()
        part = {**record.environment(), "overrides": list(overrides), "start": record.now()}
        run.update_record(resumed=[*run.load_record().get("resumed", []), part], error=None)
        if file is None:
            log.info("beginning anew in %s, as there is no checkpoint yet", run.folder)
            return train(session)
        log.info("going on in %s from step %d", run.folder, checkpoint["global_step"])
        if file != run.last_checkpoint:  # which is damaged, or was never given its name
            file.replace(run.last_checkpoint)
        return train(session, run.last_checkpoint)


def newest_checkpoint(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """The last checkpoint that is whole.

    Raises:
        ValueError: if all are damaged.
    """
    return checkpoints.load_newest([run.last_checkpoint, run.previous_checkpoint])


def can_go_on(run: Run) -> bool:
    """Whether the job of a sweep can; where all its checkpoints are damaged it says so, and the job begins anew."""
    try:
        newest_checkpoint(run)
    except ValueError as error:
        log.warning("%s; the job begins anew", error)
        return False
    return True


def check_settings(cfg: DictConfig) -> None:
    """Refuses keys that belong to no group and aren't known, or whose value can't be.

    Raises:
        ValueError: naming the key.
    """
    known = inspect.signature(settings).parameters
    own = {str(key): value for key, value in cfg.items() if key in known or not isinstance(value, DictConfig)}
    check_arguments("", settings, own)


def check_version(saved: DictConfig, run: Run) -> None:
    """Refuses the config of a run that another version has written, as far as that shows in its trainer.

    Raises:
        ValueError: naming the key that isn't there.
    """
    for name in (*PLACE, "max_epochs", "max_steps"):
        if name not in (saved.get("trainer") or {}):
            way = "; trainer=default gives it" if name in PLACE else ""
            raise ValueError(f"{run.config_file} has no trainer.{name}: it is damaged or of another version{way}")


def check_dataset(run: Run, session: Training) -> None:
    """Refuses to go on with other images than the run began with, as far as it has written down which they were.

    Raises:
        ValueError: naming the files that differ.
    """
    known, found = run.load_record().get("dataset") or {}, session.datamodule.hashes
    if changed := [name for name, digest in found.items() if known.get(name, digest) != digest]:
        root = session.datamodule.root
        raise ValueError(
            f"data.root={root}: {', '.join(changed)} changed since the run began: it can't go on with that"
        )


def check_progress(saved: DictConfig, checkpoint: dict[str, Any], run: Run, changed: Collection[str]) -> None:
    """Refuses to resume where nothing is left to train, before anything in the folder is touched.

    Raises:
        ValueError: naming what would let the run go on.
    """
    done = {"max_epochs": run.epochs, "max_steps": checkpoint["global_step"]}
    for name, amount in done.items():
        limit = OmegaConf.select(saved, f"trainer.{name}")
        if isinstance(limit, int) and 0 <= limit < amount:  # what it is else is refused with the Trainer's arguments
            raise ValueError(f"trainer.{name}={limit}: the run has done {amount} already")
    if run.status == "finished" and not any(f"trainer.{name}" in changed for name in (*done, "max_time")):
        raise ValueError(f"{run.folder} is finished; trainer.max_epochs=N lets it go on to N epochs")
