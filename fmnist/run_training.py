"""Train a classifier, choose its checkpoint and test it; or resume a run."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist.config import logs
from fmnist.config.build import Training, build_training
from fmnist.config.errors import explain_out_of_memory
from fmnist.config.keys import TrainKeys, flat_settings
from fmnist.config.overrides import key_of
from fmnist.config.resume import ENDS, changes_of, check_dataset, check_progress, check_time, resumed_config
from fmnist.config.settings import read_settings
from fmnist.config.trainer import find_place
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.sources import check_root
from fmnist.report.page import write_report
from fmnist.runs import checkpoints, provenance, untrusted
from fmnist.runs.latest import is_resumable, named_run
from fmnist.runs.run import Run, claim_run, new_run
from fmnist.training.callbacks import TrainingDiverged
from fmnist.training.fit import join, prepare_data
from fmnist.training.rank_info import RankInfo, check_sweep, find_rank
from fmnist.training.train import disk_errors_explained, tracked, train

log = logging.getLogger(__name__)
EXTENDED = (
    "the finished run is extended: the schedule is that of the new length from here on; what its end has done to early "
    "stopping and to best.ckpt stays"
)
KEPT_METRICS = ("parameters", "untrained/accuracy")
"""The entries of metrics.json that a resumed run doesn't measure again."""


@explain_out_of_memory("try a smaller network")
def main(cfg: DictConfig, hydra: DictConfig) -> float | None:
    """Train as the config says; return the monitored metric of the chosen checkpoint, for sweeps.

    Args:
        cfg: as conf/train.yaml composes it.
        hydra: Hydra's own config: the overrides, and the folder of a sweep's job.

    Raises:
        ValueError: if the config asks for something impossible. A new run then leaves no folder behind.
    """
    _, training = find_run(cfg, hydra)
    return training()


def find_run(cfg: DictConfig, hydra: DictConfig) -> tuple[Run | None, Callable[[], float | None]]:
    """Return the run that the config asks for, a new one or one to resume, and what trains it; see `main`.

    A process that takes part in the run of another one has done that when this returns, and has no run.
    """
    keys, overrides = read_settings(TrainKeys, cfg), list(hydra.overrides.task)
    resumed, changes = None, {}
    if keys.resume is not None:
        changes = changes_of(cfg, overrides)
        logs.to_terminal(errors_only=find_rank().rank > 0)
        resumed = named_run("resume", keys.resume, Path(keys.outputs), lambda run: can_be_latest(run, changes))
        untrusted.check_links(resumed.folder)
    started = find_rank().world_size
    rank = find_place(cfg.trainer if resumed is None else resumed_config(resumed, changes).trainer)
    logs.to_terminal(errors_only=rank.rank > 0)
    if rank.rank > 0:
        join(rank)
        return None, lambda: None
    if rank.world_size < started:
        log.info("one process is asked for: each of the %d that srun has started is a run of its own", started)
    if resumed is not None:
        return resumed, partial(resume, resumed, overrides, changes)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    earlier = Run(Path(hydra.runtime.output_dir)) if in_sweep else earlier_attempt(Path(keys.outputs, keys.name), rank)
    if earlier is not None and earlier.was_interrupted and can_resume(earlier):
        return earlier, partial(resume, earlier, overrides)
    run = claim_run(earlier.folder) if earlier is not None else new_run(Path(keys.outputs), keys.name)
    choices = {group: option for group, option in hydra.runtime.choices.items() if option and "/" not in group}
    fixed = hydra.job.config.override_dirname.exclude_keys
    varied = {"varied": [text for text in overrides if key_of(text) not in fixed]} if in_sweep else {}
    return run, partial(start, run, cfg, in_sweep, overrides=overrides, choices=choices, job=rank.job, **varied)


def start(run: Run, cfg: DictConfig, in_sweep: bool, **entries: Any) -> float | None:
    """Train a new run in its empty folder, which is removed if nothing was trained.

    Args:
        run: its folder.
        cfg: as conf/train.yaml composes it.
        in_sweep: whether it is a job of a sweep, which has one process.
        entries: for the run's record.
    """
    with run.locked(), logs.to_file(run.log_file):
        try:
            training = build_training(cfg, run)
            if in_sweep:
                check_sweep(training.trainer.world_size)
            prepare_data(training)
            run.update_record(**provenance.environment(), **entries, start=provenance.now())
        except BaseException:
            run.discard()
            raise
        try:
            return train_and_report(training)
        except TrainingDiverged:
            raise  # its curves show why
        except ValueError:
            if not run.last_checkpoint.exists():  # nothing was trained
                run.discard()
            raise


def resume(run: Run, overrides: Sequence[str], changes: Mapping[str, Any] | None = None) -> float | None:
    """Train on from a run's last checkpoint; from the beginning where it was interrupted before there was one.

    Args:
        run: its folder, with a config.
        overrides: what was typed, for the record.
        changes: new values by key of its config.

    Raises:
        ValueError: if nothing is left to train.
    """
    changes = changes or {}
    cfg = resumed_config(run, changes)
    read_settings(TrainKeys, cfg)
    if "data.root" not in changes:
        check_root("data.root", OmegaConf.select(cfg, "data.root"))
    with run.locked(), logs.to_file(run.log_file):
        file, checkpoint = newest_checkpoint(run) or (None, {})
        first_step = checkpoint.get("global_step", 0)
        if file is not None and not {checkpoints.DATASET_KEY, ImageDataModule.__qualname__} <= checkpoint.keys():
            raise ValueError(f"{file} was written by an older version: it can be evaluated, but not resumed")
        check_progress(run, cfg, checkpoint, changes)
        training = build_training(cfg, run, first_step)
        if run.status == "finished":
            check_time(training.trainer, checkpoint)
            log.info(EXTENDED)
        training.metrics = {name: value for name, value in run.load_metrics().items() if name in KEPT_METRICS}
        prepare_data(training)
        check_dataset(run, training.datamodule)
        run.remove_temp_files()
        part = {**provenance.environment(), "overrides": list(overrides), "start": provenance.now()}
        run.update_record(resumed=[*run.load_record().get("resumed", []), part], error=None)
        if file is None:
            log.info("restarting in %s, as there is no checkpoint yet", run.folder)
            return train_and_report(training)
        log.info("resuming in %s from step %d", run.folder, first_step)
        if file != run.last_checkpoint:  # which is damaged, or was never given its name
            file.replace(run.last_checkpoint)
        return train_and_report(training, run.last_checkpoint)


def train_and_report(training: Training, checkpoint: Path | None = None) -> float | None:
    """Train, write the report, and say where everything is; return the monitored metric of the chosen checkpoint."""
    run, datamodule = training.run, training.datamodule
    batches = " and ".join(f"data.{name}={getattr(datamodule, name)}" for name in ("batch_size", "eval_batch_size"))
    hint = f"try half of {batches}, or a smaller network"
    with disk_errors_explained(run), tracked(training), explain_out_of_memory(hint):
        run.update_record(settings=flat_settings(training.config))
        trained = train(training, checkpoint)
        if training.config["report"]:
            report = "none, as there are no validation images and test=false"
            if trained.result is not None:
                report = str(write_report(run, training.classifier, datamodule, trained.result, trained.calibrator))
            log.info("report:     %s", report)
    log.info("run folder: %s", run.folder)
    outputs = Path(training.config["outputs"])
    all_runs = outputs if run.folder.is_relative_to(outputs.absolute()) else run.folder.parent  # a sweep lies anywhere
    log.info("curves:     tensorboard --logdir %s", shlex.quote(str(all_runs)))
    return trained.monitored


def earlier_attempt(folder: Path, rank: RankInfo) -> Run | None:
    """Return the run that the same launch of torchrun has begun before it started its processes again.

    Args:
        folder: of all runs of this name.
        rank: the place of this process.
    """
    if rank.launcher != "torchrun" or not rank.restarts:
        return None
    for record in sorted(folder.glob("*/run.json"), reverse=True):
        run = Run(record.parent.absolute())
        if run.load_record().get("job") == rank.job:
            return run
    return None


def can_be_latest(run: Run, changes: Mapping[str, Any]) -> bool:
    """Return whether resume=latest may mean a run; only rank zero looks whether another process writes to it."""
    return is_resumable(run, extended=bool(changes.keys() & ENDS), alone=find_rank().rank == 0)


def newest_checkpoint(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that is complete, and its file; None where there is none.

    Raises:
        ValueError: if all are damaged.
    """
    return checkpoints.load_newest([run.last_checkpoint, run.previous_checkpoint])


def can_resume(run: Run) -> bool:
    """Return whether a run has a checkpoint to resume from; where all are damaged, say so: it then restarts."""
    try:
        newest_checkpoint(run)
    except ValueError as error:
        log.warning("%s; the job restarts", error)
        return False
    return True
