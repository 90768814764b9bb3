"""One training from the untrained network to the tested one."""

import contextlib
import copy
import logging
import math
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from fmnist.config.memory import explain_out_of_memory
from fmnist.config.processes import Terminated
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.evaluation.inspection import count_parameters
from fmnist.evaluation.measure import Result, grouped, measure, scalars, show
from fmnist.report.page import write_report
from fmnist.runs import checkpoints
from fmnist.runs import provenance as record
from fmnist.runs.run import Run
from fmnist.training.callbacks import History, TrainingDiverged, TrainingInterrupted, TrainingPruned
from fmnist.training.classifier import Classifier
from fmnist.training.ranks.group import Ranks
from fmnist.training.tensorboard import log_charts, log_hparams

log = logging.getLogger(__name__)

PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)
"""What a value on the command line needs no quotes for."""


@dataclass
class Training:
    """Everything that takes part in one training."""

    run: Run
    config: dict[str, Any]
    """What all of it was built from, as plain values."""
    classifier: Classifier
    datamodule: FashionMNISTDataModule
    trainer: Trainer
    evaluation_trainer: Callable[[], Trainer]
    """Makes a Trainer of the same device and precision that logs and keeps nothing."""
    history: History
    metrics: dict[str, Any] = field(default_factory=dict)
    """What metrics.json holds so far."""
    monitored: float | None = None
    """The monitored metric of the chosen checkpoint, once it is known."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that train together, this one being the first of them."""


def train(session: Training, checkpoint: Path | None = None) -> float | None:
    """Measures the untrained network, trains it, and measures the chosen checkpoint.

    Args:
        session: in a folder of its own, the data being in place.
        checkpoint: the one to go on from; None begins anew.

    Returns:
        The monitored metric of the chosen checkpoint; None where there are no validation images.

    Raises:
        KeyboardInterrupt: if the person pressed Ctrl-C. What there is by then is kept.
        Terminated: if it was the system.
        TrainingDiverged: if the loss isn't finite any more.
        TrainingPruned: if a callback saw no hope. Then nothing is measured.
        OutOfMemory: if a batch is too large for it.
        OSError: if a file can't be written, with the way to go on.
    """
    run = session.run
    batches = (f"data.{name}={getattr(session.datamodule, name)}" for name in ("batch_size", "eval_batch_size"))
    with (
        disk_errors_explained(run),
        explain_out_of_memory(f"try half of {' and '.join(batches)}, or a smaller network"),
    ):
        measured = train_and_measure(session, checkpoint)
    if session.config["report"]:
        if measured:
            log.info("report:     %s", write_report(run, session.classifier, session.datamodule, *measured))
        else:
            log.info("report:     none, as there are no validation images and test=false")
    log.info("run folder: %s", run.folder)
    outputs = Path(session.config["outputs"])
    all_runs = outputs if run.folder.is_relative_to(outputs.absolute()) else run.folder.parent  # a sweep lies anywhere
    log.info("curves:     tensorboard --logdir %s", all_runs)
    return session.monitored


def train_and_measure(session: Training, checkpoint: Path | None) -> tuple[str, Result] | None:
    """What `train` does but for the report; whatever happens, it is written down."""
    run, trainer = session.run, session.trainer
    entries = {"precision": trainer.precision, "seed": session.config["seed"], "dataset": session.datamodule.hashes}
    run.save_config(session.config)
    run.update_record(status="running", **entries)
    introduce(session)
    log_charts(trainer.logger, session.classifier.classes)
    try:
        if checkpoint is None:
            measure_untrained(session)
            run.save_metrics(session.metrics)  # for a run that is killed and goes on
        fit(session, checkpoint)
        if trainer.should_stop:
            log.info("the training ended before its last step: early stopping, or trainer.max_time")
        measured = conclude(session)
    except (TrainingInterrupted, KeyboardInterrupt, SystemExit) as asked:  # Lightning turns Ctrl-C into SystemExit
        end(session, "interrupted")
        log.info("interrupted; go on with:  %s", resume_command(run))
        raise interruption(asked) from None
    except TrainingDiverged as error:
        end(session, "failed")
        last = run.last_checkpoint
        kept = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
        raise TrainingDiverged(f"{error}; {kept}; stop_on_nan=false goes on all the same") from None
    except TrainingPruned:
        end(session, "pruned")
        raise
    except MisconfigurationException as error:
        end(session, "failed")
        raise ValueError(" ".join(str(error).split())) from error
    except BaseException:
        end(session, "failed")
        raise
    end(session, "finished")
    return measured


@contextlib.contextmanager
def disk_errors_explained(run: Run) -> Iterator[None]:
    """What goes wrong in writing a run is said once, with where it was and how to go on."""
    of_threads = threading.excepthook
    # TensorBoard's thread fails by itself; the next one to write hears of it.
    threading.excepthook = lambda end: None if isinstance(end.exc_value, OSError) else of_threads(end)
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # not the system's
            raise
        where = error.filename or run.folder
        raise OSError(f"{where}: {error.strerror}; once that is mended, go on with:  {resume_command(run)}") from error
    finally:
        threading.excepthook = of_threads


def fit(session: Training, checkpoint: Path | None) -> None:
    """Trains, with all processes of the run."""
    run, classifier = session.run, session.classifier
    if not session.ranks.several:
        session.trainer.fit(classifier, session.datamodule, ckpt_path=checkpoint, weights_only=True)
        return
    network = copy.deepcopy(classifier.network)
    task = {
        "config": session.config,
        "folder": str(run.folder),
        "checkpoint": str(checkpoint) if checkpoint else None,
        "hint": f"; go on with:  {resume_command(run)}",
    }
    with session.ranks.together(task):
        session.trainer.fit(classifier, session.datamodule, ckpt_path=checkpoint, weights_only=True)
    if run.chosen_checkpoint.is_file():  # whose weights the network gets, without what several processes made of it
        classifier.network = network


def follow(session: Training, checkpoint: Path | None) -> None:
    """Trains in a process that isn't the first; what is to be said and written is the first one's.

    Raises:
        KeyboardInterrupt: if the person pressed Ctrl-C.
    """
    ranks = session.ranks
    try:
        session.trainer.fit(session.classifier, session.datamodule, ckpt_path=checkpoint, weights_only=True)
    except (TrainingInterrupted, KeyboardInterrupt, SystemExit) as asked:
        ranks.await_first()
        raise interruption(asked) from None
    except Exception:
        ranks.await_first()
        raise


def interruption(asked: BaseException) -> KeyboardInterrupt:
    """What the interruption of a training is for the process."""
    return Terminated() if isinstance(asked, TrainingInterrupted) and asked.by_system else KeyboardInterrupt()


def resume_command(run: Run) -> str:
    """What the person types to go on with a run."""
    folder = str(run.folder)
    if not PLAIN.fullmatch(folder):
        folder = '"' + folder.replace('"', r"\"") + '"'
    return f"python scripts/train.py {shlex.quote(f'resume={folder}')}"


def set_up(session: Training) -> None:
    """Gets the data, and looks whether each of the Trainer's limits leaves something of it.

    Raises:
        ValueError: if the data can't be had, or a limit leaves nothing.
    """
    datamodule = session.datamodule
    datamodule.prepare_data()
    datamodule.setup()
    for split, (images, _) in datamodule.splits.items():
        batches = math.ceil(len(images) / (datamodule.batch_size if split == "train" else datamodule.eval_batch_size))
        limit = getattr(session.trainer, f"limit_{split}_batches")
        if batches and isinstance(limit, float) and int(batches * limit) == 0:
            raise ValueError(f"trainer.limit_{split}_batches={limit} leaves nothing of {batches} batches")


def introduce(session: Training) -> None:
    """Says what is trained on what."""
    network, trainer = session.classifier.network, session.trainer
    parameters = count_parameters(network)
    session.metrics["parameters"] = parameters
    sizes = {split: f"{len(labels):,}" for split, (_, labels) in session.datamodule.splits.items()}
    device = type(trainer.accelerator).__name__.removesuffix("Accelerator")
    devices = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
    log.info(
        "%s with %s parameters, on %s in %s", type(network).__name__, f"{parameters:,}", devices, trainer.precision
    )
    log.info("%s images to train on, %s to validate, %s to test", sizes["train"], sizes["val"], sizes["test"])


def measure_untrained(session: Training) -> None:
    """The accuracy to compare with: about one in ten. On the validation images, or else the test images."""
    split = "val" if session.datamodule.val_size else "test"
    if split == "test" and not session.config["test"]:
        log.info("untrained: not measured, as there are no validation images and test=false")
        return
    result = measure(session.evaluation_trainer(), session.classifier, session.datamodule, split)
    session.metrics["untrained/accuracy"] = result["accuracy"].item()
    session.history.add_untrained(scalars(split, result, session.classifier.classes))
    for logger in session.trainer.loggers:
        logger.log_metrics(scalars(split, result, session.classifier.classes), step=0)
    log.info("untrained: accuracy %.2f%% (%s)", 100 * result["accuracy"].item(), split)


def conclude(session: Training) -> tuple[str, Result] | None:
    """Measures the chosen checkpoint on validation and test images, and shows the test's result.

    Returns:
        The split that the result is of, and the metrics on it; None where there is nothing to measure on.
    """
    measured = None
    chosen, metrics = session.run.chosen_checkpoint, session.metrics
    if chosen.is_file():
        checkpoints.restore_network(session.classifier.network, checkpoints.load(chosen))
        metrics["checkpoint"] = chosen.name
    if session.datamodule.val_size:
        result = measure(session.evaluation_trainer(), session.classifier, session.datamodule, "val")
        metrics |= grouped("val", result, session.classifier.classes)
        session.monitored = scalars("val", result, session.classifier.classes)[session.config["monitor"]]
        final = {f"val/{name}": result[name] for name in ("accuracy", "loss")}
        # At the first step that isn't done: where the run goes on, this point gives way.
        log_hparams(session.trainer.logger, session.config, final, step=session.trainer.global_step)
        measured = ("val", result)
    if session.config["test"]:
        result = measure(session.evaluation_trainer(), session.classifier, session.datamodule, "test")
        metrics |= grouped("test", result, session.classifier.classes)
        show("test", metrics.get("checkpoint", "the network"), result, session.classifier.classes)
        measured = ("test", result)
    return measured


def end(session: Training, status: str) -> None:
    """Writes down what came out, however the training ended; no full disk hides what has ended it."""
    history = session.history
    session.metrics |= {
        "epochs": history.epochs,
        "train/seconds": round(history.seconds, 3),
        "train/images_per_second": round(history.images_per_second, 1),
    }
    session.metrics |= {name: history.last[name] for name in ("train/loss", "train/accuracy") if name in history.last}
    with contextlib.nullcontext() if status == "finished" else contextlib.suppress(OSError):
        session.run.save_metrics(session.metrics)
        session.run.update_record(status=status, end=record.now())
