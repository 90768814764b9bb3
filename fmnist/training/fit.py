"""The fit of a training: in this process, in several of this machine, or in those of torchrun or srun."""

import contextlib
import copy
import logging
import math
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fmnist.config import logs
from fmnist.config.build import Training, build_training
from fmnist.config.processes import Terminated
from fmnist.runs import checkpoints
from fmnist.runs.run import Run
from fmnist.training.callbacks import TrainingInterrupted
from fmnist.training.callbacks.history import Row
from fmnist.training.distributed import (
    ProcessLostError,
    broadcast,
    explained,
    first_to_report,
    gather,
    launch,
    process_group,
)
from fmnist.training.rank_info import RankInfo, find_rank
from fmnist.training.tensorboard import find_tensorboard
from fmnist.training.trackers import trackers

log = logging.getLogger(__name__)


@dataclass
class FitOutcome:
    """How a fit ended, as plain values: it may have taken place in other processes."""

    step: int
    stopped_early: bool
    history: dict[str, Any]


def prepare_data(training: Training) -> None:
    """Get the data, check that they go with the Trainer's limits, and log at least once an epoch.

    Raises:
        ValueError: if the data can't be had, a limit leaves nothing, or an epoch ends before its first validation.
    """
    datamodule, trainer = training.datamodule, training.trainer
    datamodule.prepare_data()
    datamodule.setup()
    batches = {
        split: math.ceil(len(images) / datamodule.eval_batch_size) for split, (images, _) in datamodule.splits.items()
    }
    batches["train"] = len(datamodule.train_dataloader())
    for split, number in batches.items():
        name = "overfit_batches" if trainer.overfit_batches else f"limit_{split}_batches"  # type: ignore[attr-defined]
        limit = getattr(trainer, name)
        batches[split] = min(number, limit) if isinstance(limit, int) else int(number * limit)
        if number and not batches[split]:
            raise ValueError(f"trainer.{name}={limit} leaves nothing of {number} {split} batches")
    interval = trainer.val_check_interval
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > batches["train"]:
        raise ValueError(
            f"trainer.val_check_interval={interval}: must be at most {batches['train']}, the batches of an epoch; with "
            "trainer.check_val_every_n_epoch=null it may be more"
        )
    steps = math.ceil(batches["train"] / trainer.accumulate_grad_batches)
    trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)  # type: ignore[attr-defined]


def fit(training: Training, checkpoint: Path | None) -> FitOutcome:
    """Train in this process.

    Raises:
        ValueError: if the processes of the run, on several machines, have different data.
    """
    trainer, history, datamodule = training.trainer, training.history, training.datamodule
    if trainer.world_size > 1 and any(hashes != datamodule.hashes for hashes in gather(datamodule.hashes)):
        raise ValueError(f"data.root={datamodule.root}: its files must be the same on all machines")
    trainer.fit(training.classifier, datamodule, ckpt_path=checkpoint, weights_only=True)
    return FitOutcome(trainer.global_step, trainer.should_stop, history.state_dict())


def fit_all(training: Training, checkpoint: Path | None) -> FitOutcome:
    """Train in all processes of the run: this one, those that torchrun or srun started, or new ones on this machine."""
    rank, trainer = find_rank(), training.trainer
    if trainer.world_size == 1:
        return fit(training, checkpoint)
    task = (
        training.config,
        str(training.run.folder),
        str(checkpoint) if checkpoint else None,
        training.history.rows,
    )
    if rank.external:
        network = copy.deepcopy(training.classifier.network)
        with process_group(rank):
            try:
                broadcast(task)
                outcome = fit(training, checkpoint)
            except Exception as error:
                lost = explained(error)
                if isinstance(lost, ProcessLostError):
                    lost.reported = not first_to_report(rank)
                raise lost from None
        # The network of one process again; it gets the weights of the chosen checkpoint.
        training.classifier.network = network
        return outcome
    if (tensorboard := find_tensorboard(trainer)) is not None:
        tensorboard.experiment.close()  # rank zero's process writes the next file of events
    for tracker in trackers(trainer):
        tracker.close()  # the process of rank zero resumes the trackers' runs
    restarts = training.config.get("max_restarts", 0)
    outcome = launch(fit_worker, trainer.world_size, *task, max_restarts=restarts)
    training.history.load_state_dict(outcome.history)
    return outcome


def fit_worker(config: dict[str, Any], folder: str, checkpoint: str | None, rows: list[Row]) -> FitOutcome:
    """Train in one of several processes; rank zero alone writes and logs.

    Args:
        config: the resolved config of the run.
        folder: the run's.
        checkpoint: the one to resume from, if any; after a restart of the processes it is the newest one.
        rows: the table of the epochs so far: that of the untrained network. A checkpoint brings its own.
    """
    run, rank = Run(Path(folder)), find_rank()
    newest = Path(checkpoint) if checkpoint else None
    with contextlib.ExitStack() as stack:
        if rank.launcher == "fmnist":  # torchrun and srun start the whole command instead
            logs.to_terminal(errors_only=rank.rank > 0)
            if rank.rank == 0:
                stack.enter_context(logs.to_file(run.log_file))
            if rank.restarts and (found := checkpoints.load_newest([run.last_checkpoint, run.previous_checkpoint])):
                newest = found[0]
                log.info("resuming from %s after the processes were started again", newest)
        first_step = checkpoints.load(newest)["global_step"] if newest else None
        training = build_training(OmegaConf.create(config), run, first_step)
        training.history.rows = rows
        prepare_data(training)
        for tracker in trackers(training.trainer):
            stack.callback(tracker.close)
        return fit(training, newest)


def join(rank: RankInfo) -> None:
    """Take part in a training whose rank zero is another process of torchrun or srun.

    Raises:
        KeyboardInterrupt: if the training was interrupted.
    """
    hint = ""
    with process_group(rank):
        try:
            config, folder, checkpoint, rows = broadcast(None)
            hint = f"; resume with:  {Run(Path(folder)).resume_command}"
            fit_worker(config, folder, checkpoint, rows)
        except (TrainingInterrupted, KeyboardInterrupt, SystemExit) as signal:
            raise interruption(signal) from None
        except Exception as error:
            reason = explained(error)
            if first_to_report(rank):
                name = "" if isinstance(reason, ProcessLostError) else f"rank {rank.rank} on {socket.gethostname()}: "
                log.error("error: %s%s%s", name, reason, hint)
            sys.exit(2)


def interruption(signal: BaseException) -> KeyboardInterrupt:
    """Return the exception that the interruption of a training is for the process."""
    return Terminated() if isinstance(signal, TrainingInterrupted) and signal.by_system else KeyboardInterrupt()
