"""One training from the untrained network to the tested one."""

import contextlib
import copy
import logging
import math
import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from fmnist.config import logs
from fmnist.config.build import Training, build_training
from fmnist.config.processes import Terminated
from fmnist.evaluation.inspection import count_parameters
from fmnist.evaluation.measure import Result, grouped, measure, scalars, show
from fmnist.runs import checkpoints, provenance
from fmnist.runs.run import Run
from fmnist.training.callbacks import TrainingDiverged, TrainingInterrupted, TrainingPruned
from fmnist.training.distributed import ProcessLostError, broadcast, launch, process_group
from fmnist.training.rank_info import RankInfo, find_rank
from fmnist.training.tensorboard import RunLogger, log_charts, log_choices

log = logging.getLogger(__name__)

PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)
"""What a value on the command line needs no quotes for."""


@dataclass
class Trained:
    """What a training leads to."""

    monitored: float | None = None
    """The monitored metric of the chosen checkpoint; None where there are no validation images."""
    split: str = "test"
    """The split that `result` is of."""
    result: Result | None = None
    """The metrics of the chosen checkpoint; None where nothing was measured."""


@dataclass
class FitOutcome:
    """How a fit ended, as plain values: it may have taken place in other processes."""

    step: int
    stopped_early: bool
    history: dict[str, Any]


def train(training: Training, checkpoint: Path | None = None) -> Trained:
    """Measure the untrained network, train it, and measure the chosen checkpoint.

    Args:
        training: its objects; the data are in place and the run has its folder.
        checkpoint: the one to resume from; None starts a new training.

    Raises:
        KeyboardInterrupt: if the user pressed Ctrl-C. Everything up to then is kept.
        Terminated: if it was the system.
        TrainingDiverged: if the loss is no longer finite.
        TrainingPruned: if a callback stopped a hopeless training. Then nothing is measured.
        ProcessLostError: if another process of the run has ended.
        OSError: if a file can't be written, with the command that resumes.
    """
    run, config = training.run, training.config
    entries = {"precision": training.trainer.precision, "seed": config["seed"], "dataset": training.datamodule.hashes}
    run.save_config(config)
    run.update_record(status="running", **entries)
    log_summary(training)
    log_charts(training.trainer.logger, training.classifier.classes)
    status = "failed"
    try:
        if checkpoint is None:
            measure_untrained(training)
            run.save_metrics(training.metrics)  # for a run that is killed and resumed
        outcome = fit_all(training, checkpoint)
        if outcome.stopped_early:
            log.info("the training ended before its last step: early stopping, or trainer.max_time")
        trained = evaluate_checkpoint(training, outcome.step)
        status = "finished"
        return trained
    except (TrainingInterrupted, KeyboardInterrupt, SystemExit) as signal:  # Lightning turns Ctrl-C into SystemExit
        status = "interrupted"
        log.info("interrupted; resume with:  %s", resume_command(run))
        raise interruption(signal) from None
    except TrainingDiverged as error:
        last = run.last_checkpoint
        kept = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
        raise TrainingDiverged(f"{error}; {kept}; stop_on_nan=false continues all the same") from None
    except TrainingPruned:
        status = "pruned"
        raise
    except ProcessLostError as error:
        raise ProcessLostError(f"{error}; resume with:  {resume_command(run)}") from None
    except MisconfigurationException as error:
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        record_end(training, status)


def fit(training: Training, checkpoint: Path | None) -> FitOutcome:
    """Train in this process."""
    trainer, history = training.trainer, training.history
    trainer.fit(training.classifier, training.datamodule, ckpt_path=checkpoint, weights_only=True)
    return FitOutcome(trainer.global_step, trainer.should_stop, history.state_dict())


def fit_all(training: Training, checkpoint: Path | None) -> FitOutcome:
    """Train in all processes of the run: this one, those that torchrun or srun started, or new ones on this machine."""
    rank, trainer = find_rank(), training.trainer
    if trainer.world_size == 1:
        return fit(training, checkpoint)
    task = (training.config, str(training.run.folder), str(checkpoint) if checkpoint else None)
    if rank.external:
        network = copy.deepcopy(training.classifier.network)
        with process_group(rank):
            broadcast(task)
            outcome = fit(training, checkpoint)
        # The network of one process again; it gets the weights of the chosen checkpoint.
        training.classifier.network = network
        return outcome
    if isinstance(trainer.logger, RunLogger):
        trainer.logger.experiment.close()  # rank zero's process writes the next file of events
    restarts = training.config.get("max_restarts", 0)
    outcome = launch(fit_worker, trainer.world_size, *task, max_restarts=restarts)
    training.history.load_state_dict(outcome.history)
    return outcome


def fit_worker(config: dict[str, Any], folder: str, checkpoint: str | None) -> FitOutcome:
    """Train in one of several processes; rank zero alone writes and logs.

    Args:
        config: the resolved config of the run.
        folder: the run's.
        checkpoint: the one to resume from, if any; after a restart of the processes it is the newest one.
    """
    run, rank = Run(Path(folder)), find_rank()
    newest = Path(checkpoint) if checkpoint else None
    with contextlib.ExitStack() as stack:
        if rank.launcher == "fmnist":  # otherwise the command line has set the logs up
            logs.to_terminal(errors_only=rank.rank > 0)
            if rank.rank == 0:
                stack.enter_context(logs.to_file(run.log_file))
        if rank.restarts and (found := checkpoints.load_newest([run.last_checkpoint, run.previous_checkpoint])):
            newest = found[0]
            log.info("resuming from %s after the processes were started again", newest)
        first_step = checkpoints.load(newest)["global_step"] if newest else None
        training = build_training(OmegaConf.create(config), run, first_step)
        prepare_data(training)
        return fit(training, newest)


def join(rank: RankInfo) -> None:
    """Take part in a training whose rank zero is another process of torchrun or srun.

    Raises:
        KeyboardInterrupt: if the training was interrupted.
    """
    try:
        with process_group(rank):
            fit_worker(*broadcast(None))
    except (TrainingInterrupted, KeyboardInterrupt, SystemExit) as signal:
        raise interruption(signal) from None


def interruption(signal: BaseException) -> KeyboardInterrupt:
    """Return the exception that the interruption of a training is for the process."""
    return Terminated() if isinstance(signal, TrainingInterrupted) and signal.by_system else KeyboardInterrupt()


def resume_command(run: Run) -> str:
    """Return the command that resumes a run."""
    folder = str(run.folder)
    if not PLAIN.fullmatch(folder):
        folder = '"' + folder.replace('"', r"\"") + '"'
    return f"python scripts/train.py {shlex.quote(f'resume={folder}')}"


@contextlib.contextmanager
def disk_errors_explained(run: Run) -> Iterator[None]:
    """Say once what went wrong in writing a run, where, and how to resume it."""
    excepthook = threading.excepthook
    # TensorBoard's thread fails by itself; the next one to write gets the same error.
    threading.excepthook = lambda end: None if isinstance(end.exc_value, OSError) else excepthook(end)
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # not the system's
            raise
        where = error.filename or run.folder
        raise OSError(f"{where}: {error.strerror}; once that is solved, resume with:  {resume_command(run)}") from error
    finally:
        threading.excepthook = excepthook


def prepare_data(training: Training) -> None:
    """Get the data, and check that each of the Trainer's limits leaves something of them.

    Raises:
        ValueError: if the data can't be had, or a limit leaves nothing.
    """
    datamodule = training.datamodule
    datamodule.prepare_data()
    datamodule.setup()
    for split, (images, _) in datamodule.splits.items():
        batches = math.ceil(len(images) / (datamodule.batch_size if split == "train" else datamodule.eval_batch_size))
        limit = getattr(training.trainer, f"limit_{split}_batches")
        if batches and isinstance(limit, float) and int(batches * limit) == 0:
            raise ValueError(f"trainer.limit_{split}_batches={limit} leaves nothing of {batches} batches")


def log_summary(training: Training) -> None:
    """Log what is trained on what."""
    network, trainer = training.classifier.network, training.trainer
    parameters = count_parameters(network)
    training.metrics["parameters"] = parameters
    sizes = {split: f"{len(labels):,}" for split, (_, labels) in training.datamodule.splits.items()}
    device = type(trainer.accelerator).__name__.removesuffix("Accelerator")
    devices = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
    log.info(
        "%s with %s parameters, on %s in %s", type(network).__name__, f"{parameters:,}", devices, trainer.precision
    )
    log.info("%s images to train on, %s to validate, %s to test", sizes["train"], sizes["val"], sizes["test"])


def measure_untrained(training: Training) -> None:
    """Log the accuracy to compare with, about one in K: of the validation images, or else of the test images."""
    split = "val" if training.datamodule.val_size else "test"
    if split == "test" and not training.config["test"]:
        log.info("untrained: not measured, as there are no validation images and test=false")
        return
    result = measure(training.evaluation_trainer(), training.classifier, training.datamodule, split)
    values = scalars(split, result, training.classifier.classes)
    training.metrics["untrained/accuracy"] = values[f"{split}/accuracy"]
    training.history.add_untrained(values)
    for logger in training.trainer.loggers:
        logger.log_metrics(values, step=0)
    log.info("untrained: accuracy %.2f%% (%s)", 100 * values[f"{split}/accuracy"], split)


def evaluate_checkpoint(training: Training, step: int) -> Trained:
    """Measure the chosen checkpoint on validation and test images, and show the result on the test images.

    Args:
        training: its objects.
        step: the number of steps of the training.
    """
    chosen, metrics, classes = training.run.chosen_checkpoint, training.metrics, training.classifier.classes
    trained = Trained()
    if chosen.is_file():
        checkpoints.restore_network(training.classifier.network, checkpoints.load(chosen))
        metrics["checkpoint"] = chosen.name
    if training.datamodule.val_size:
        result = measure(training.evaluation_trainer(), training.classifier, training.datamodule, "val")
        metrics |= grouped("val", result, classes)
        trained = Trained(scalars("val", result, classes)[training.config["monitor"]], "val", result)
        final = {f"val/{name}": result[name] for name in ("accuracy", "loss")}
        # At the first step that isn't done: where the run is resumed, this point is dropped.
        log_choices(training.trainer.logger, training.config, final, step=step)
    if training.config["test"]:
        result = measure(training.evaluation_trainer(), training.classifier, training.datamodule, "test")
        metrics |= grouped("test", result, classes)
        show("test", metrics.get("checkpoint", "the network"), result, classes)
        trained.split, trained.result = "test", result
    return trained


def record_end(training: Training, status: str) -> None:
    """Write down what came out, however the training ended; a full disk doesn't hide what ended it."""
    history = training.history
    training.metrics |= {
        "epochs": history.epochs,
        "train/seconds": round(history.seconds, 3),
        "train/images_per_second": round(history.images_per_second, 1),
    }
    training.metrics |= {name: history.last[name] for name in ("train/loss", "train/accuracy") if name in history.last}
    with contextlib.nullcontext() if status == "finished" else contextlib.suppress(OSError):
        training.run.save_metrics(training.metrics)
        training.run.update_record(status=status, end=provenance.now())
