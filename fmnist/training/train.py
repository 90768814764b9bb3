"""One training from the untrained network to the tested one."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException

from fmnist.config.build import Training
from fmnist.evaluation.calibration import Calibrator, calibration_line, calibration_metrics
from fmnist.evaluation.inspection import count_parameters, network_name
from fmnist.evaluation.measure import Evaluation, log_evaluation, measure
from fmnist.evaluation.unfamiliar import fit_detector
from fmnist.runs import checkpoints, provenance
from fmnist.runs.run import Run
from fmnist.training.callbacks import TrainingDiverged, TrainingInterrupted, TrainingPruned
from fmnist.training.distributed import ProcessLostError
from fmnist.training.fit import fit_all, interruption
from fmnist.training.tensorboard import log_charts, log_hparams
from fmnist.training.trackers import final_metrics, trackers

log = logging.getLogger(__name__)


@dataclass
class Trained:
    """What a training leads to."""

    monitored: float | None = None
    """The monitored metric of the chosen checkpoint; None where there are no validation images."""
    result: Evaluation | None = None
    """Of the chosen checkpoint, on the test images if they are measured; None where nothing was measured."""
    calibrator: Calibrator | None = None
    """Of the chosen checkpoint; None where there are no validation images."""


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
    log_charts(training.trainer, training.classifier.classes)
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
        log.info("interrupted; resume with:  %s", run.resume_command)
        raise interruption(signal) from None
    except TrainingDiverged as error:
        last = run.last_checkpoint
        kept = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
        raise TrainingDiverged(f"{error}; {kept}; stop_on_nan=false continues all the same") from None
    except TrainingPruned:
        status = "pruned"
        raise
    except ProcessLostError as error:
        error.args = (f"{error}; resume with:  {run.resume_command}",)
        raise
    except (MisconfigurationException, ModuleNotFoundError) as error:  # which callbacks raise
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        record_end(training, status)


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
        raise OSError(f"{where}: {error.strerror}; once that is solved, resume with:  {run.resume_command}") from error
    finally:
        threading.excepthook = excepthook


@contextlib.contextmanager
def tracked(training: Training) -> Iterator[None]:
    """Tell the trackers of a training the settings, and at its end the result, the report and how it has ended."""
    found, run = trackers(training.trainer), training.run
    for tracker in found:
        tracker.log_hyperparams(training.config)
    try:
        yield
    finally:
        final, step = final_metrics(training.metrics), int(training.history.last.get("step", 0))
        status = None
        with contextlib.suppress(OSError, ValueError):  # of a damaged record
            status = run.status
        for tracker in found:
            tracker.log_metrics(final, step)
            if run.report_file.is_file():
                tracker.log_file(run.report_file)
            tracker.close(status or "failed")


def log_summary(training: Training) -> None:
    """Log what is trained on what."""
    network, trainer = training.classifier.network, training.trainer
    parameters = count_parameters(network)
    training.metrics["parameters"] = parameters
    device = type(trainer.accelerator).__name__.removesuffix("Accelerator")
    devices = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
    trained = sum(weights.numel() for weights in network.parameters() if weights.requires_grad)
    frozen = f" ({trained:,} trained)" if trained < parameters else ""
    name = network_name(network)
    log.info("%s with %s parameters%s, on %s in %s", name, f"{parameters:,}", frozen, devices, trainer.precision)
    used = (count_images(training, split) for split in ("train", "val", "test"))
    log.info("%s images to train on, %s to validate, %s to test", *used)


def count_images(training: Training, split: str) -> str:
    """Return how many images of a split an epoch takes, and out of how many where `trainer.limit_..._batches` cuts."""
    trainer, datamodule = training.trainer, training.datamodule
    total = len(datamodule.splits[split][1])
    limit: int | float = getattr(trainer, f"limit_{split}_batches")
    size = datamodule.batch_size if split == "train" else datamodule.eval_batch_size
    batches = limit if isinstance(limit, int) else int(limit * -(-total // size))
    used = min(total, batches * size)
    return f"{total:,}" if used == total else f"{used:,}/{total:,}"


def measure_untrained(training: Training) -> None:
    """Log the accuracy to compare with, about one in K: of the validation images, or else of the test images."""
    split = "val" if training.datamodule.val_size else "test"
    if split == "test" and not training.config["test"]:
        log.info("untrained: not measured, as there are no validation images and test=false")
        return
    result = measure(training.evaluation_trainer(), training.classifier, training.datamodule, split)
    training.metrics["untrained/accuracy"] = result.accuracy
    training.history.add_untrained(result.scalars())
    for logger in training.trainer.loggers:
        logger.log_metrics(result.scalars(), step=0)
    log.info("untrained: accuracy %.2f%% (%s)", 100 * result.accuracy, split)


def evaluate_checkpoint(training: Training, step: int) -> Trained:
    """Measure the chosen checkpoint on validation and test images, and show the result on the test images.

    Args:
        training: its objects.
        step: the number of steps of the training.
    """
    chosen, metrics = training.run.chosen_checkpoint, training.metrics
    trained, calibrator = Trained(), None
    if chosen.is_file():
        checkpoints.restore_network(training.classifier.network, checkpoints.load(chosen))
        metrics["checkpoint"] = chosen.name
    if chosen == training.run.best_checkpoint and "val/loss" not in training.history.last:  # as with trainer.max_steps
        log.info("the last epoch was not validated: the result is of the best checkpoint before it")
    if training.datamodule.val_size:
        result = measure(training.evaluation_trainer(), training.classifier, training.datamodule, "val")
        metrics |= result.for_json()
        calibrator = calibrate(training, result)
        trained = Trained(result.scalars()[training.config["monitor"]], result)
        scalars = {"val/accuracy": result.accuracy, "val/loss": result.loss}
        log_hparams(training.trainer, training.config, training.run.varied, scalars, step=step)
    if training.config["test"]:
        result = measure(training.evaluation_trainer(), training.classifier, training.datamodule, "test")
        metrics |= result.for_json()
        log_evaluation(metrics.get("checkpoint", "the network"), result)
        if calibrator is not None and result.logits.isfinite().all():
            labels = training.datamodule.splits["test"][1][: len(result.logits)]
            metrics["calibration"]["test"] = values = calibration_metrics(calibrator, result.logits, labels)
            log.info("%s", calibration_line(calibrator, values))
        trained.result = result
    trained.calibrator = calibrator
    return trained


def calibrate(training: Training, result: Evaluation) -> Calibrator | None:
    """Fit the calibration, and what tells unfamiliar images, and keep both in the chosen checkpoint.

    Args:
        training: its objects.
        result: of the chosen checkpoint, on the validation images.
    """
    datamodule, chosen = training.datamodule, training.run.chosen_checkpoint
    images, labels = (part[: len(result.logits)] for part in datamodule.splits["val"])
    calibrator = Calibrator.fit(result.logits, labels)
    if calibrator is not None:
        values = calibration_metrics(calibrator, result.logits, labels)
        training.metrics["calibration"] = {"temperature": calibrator.temperature, "val": values}
    if calibrator is not None and chosen.is_file():
        kept = {checkpoints.CALIBRATION_KEY: calibrator.to_dict()}
        trainer, known = training.evaluation_trainer(), datamodule.splits["train"][0]
        size = datamodule.eval_batch_size
        detector = fit_detector(trainer, training.classifier, datamodule.dataset, known, images, size)
        if detector is not None:
            kept[checkpoints.DETECTOR_KEY] = detector.to_dict()
        checkpoints.add(chosen, **kept)
    return calibrator


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
