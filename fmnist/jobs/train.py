"""Train a classifier, choose its checkpoint and test it; or go on with a run."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as lightning
from annotated_types import Ge
from hydra.types import RunMode
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from fmnist import checkpoints, logs, record
from fmnist.arguments import check_arguments
from fmnist.build import (
    build_callbacks,
    build_classifier,
    build_datamodule,
    build_measuring_trainer,
    build_trainer,
    check_monitor,
)
from fmnist.callbacks import History, Interruption, RandomStates, RunConfig, TrainingInterrupted
from fmnist.classifier import Classifier
from fmnist.data.datamodule import FashionMNISTDataModule
from fmnist.evaluation import measure, plain
from fmnist.metrics import direction
from fmnist.reporting.tables import class_table
from fmnist.runs import Run, new_run, open_run

log = logging.getLogger(__name__)


@dataclass
class Session:
    """Everything that takes part in one training."""

    cfg: DictConfig
    run: Run
    classifier: Classifier
    datamodule: FashionMNISTDataModule
    trainer: Trainer
    history: History
    metrics: dict[str, Any]
    """What metrics.json holds so far."""


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
            session = prepare(cfg, run)
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
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key == "test" or key.startswith("trainer."):
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), force_add=True)
        elif key != "resume":
            raise ValueError(f"{override}: a run goes on with its own config; only trainer.<key> and test can change")
    checkpoint = checkpoints.load(run.last_checkpoint)
    if saved.trainer.max_epochs == run.load_config().trainer.max_epochs and run.status == "finished":
        raise ValueError(f"resume={cfg.resume}: the run is finished; trainer.max_epochs=N lets it go on to N epochs")
    with logs.to_file(run.log_file):
        session = prepare(saved, run, first_step=checkpoint["global_step"])
        session.metrics = run.load_metrics()
        run.update_record(resumed=[*run.load_record().get("resumed", []), record.now()])
        log.info("going on with %s after epoch %d", run.folder, checkpoint["epoch"])
        return train(session, run.last_checkpoint)


def prepare(cfg: DictConfig, run: Run, first_step: int = 0) -> Session:
    """Builds everything the config names, so that a mistake shows before the data is read; then gets the data.

    Args:
        cfg: the whole config.
        run: where the training's files go.
        first_step: the optimizer step at which a resumed training begins: later events are of a lost time.
    """
    lightning.seed_everything(cfg.seed, verbose=False)
    check_monitor(cfg)
    classifier = build_classifier(cfg)
    datamodule = build_datamodule(cfg)
    history = History(run.history_file)
    callbacks = [
        *build_callbacks(cfg),
        RunConfig(plain_config(cfg)),
        RandomStates(),
        Interruption(run.last_checkpoint),
        LearningRateMonitor(logging_interval="step"),
        history,
        *checkpointing(cfg, run),
        *([RichProgressBar(leave=False)] if shows_progress(cfg) else []),
    ]
    logger = TensorBoardLogger(run.folder, name="", version="", purge_step=first_step or None)
    logger.NAME_HPARAMS_FILE = run.config_file.name  # what Lightning would write to hparams.yaml stands there
    trainer = build_trainer(cfg, callbacks=callbacks, logger=logger, enable_progress_bar=shows_progress(cfg))
    datamodule.prepare_data()
    datamodule.setup()
    return Session(cfg, run, classifier, datamodule, trainer, history, metrics={})


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config without anything of OmegaConf's."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def checkpointing(cfg: DictConfig, run: Run) -> list[ModelCheckpoint]:
    """The last epoch's checkpoint always; the best one's where there are images to tell which it is."""

    def keep(file: Path, **choice: Any) -> ModelCheckpoint:
        return ModelCheckpoint(
            file.parent, file.stem, save_on_train_epoch_end=True, enable_version_counter=False, **choice
        )

    best = keep(run.best_checkpoint, monitor=cfg.monitor, mode=direction(cfg.monitor))
    return [*([best] if cfg.data.val_size else []), keep(run.last_checkpoint)]


def shows_progress(cfg: DictConfig) -> bool:
    """Whether there is a terminal to show a progress bar on."""
    return bool(cfg.trainer.enable_progress_bar) and sys.stdout.isatty()


def train(session: Session, checkpoint: Path | None = None) -> float | None:
    """Measures the untrained network, trains it, and measures the chosen checkpoint.

    Args:
        session: what `prepare` has made.
        checkpoint: the one to go on from; None begins anew.
    """
    run = session.run
    run.save_config(session.cfg)
    run.update_record(
        status="running",
        precision=session.trainer.precision,
        seed=session.cfg.seed,
        dataset=session.datamodule.hashes,
    )
    try:
        introduce(session)
        if checkpoint is None:
            measure_untrained(session)
        session.trainer.fit(session.classifier, session.datamodule, ckpt_path=checkpoint, weights_only=True)
        conclude(session)
    except (TrainingInterrupted, KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
        end(session, "interrupted")
        log.info("interrupted; go on with:  python scripts/train.py resume=%s", run.folder)
        raise KeyboardInterrupt from None
    except BaseException:
        end(session, "failed")
        raise
    end(session, "finished")
    value: float | None = session.metrics.get(session.cfg.monitor)
    return value


def introduce(session: Session) -> None:
    """Says what is trained on what, and where the results go."""
    parameters = sum(parameter.numel() for parameter in session.classifier.network.parameters())
    sizes = {split: len(labels) for split, (_, labels) in session.datamodule.splits.items()}
    device = type(session.trainer.accelerator).__name__.removesuffix("Accelerator")
    log.info("%s with %s parameters", type(session.classifier.network).__name__, f"{parameters:,}")
    log.info("%s images to train on, %s to validate, %s to test", *(f"{sizes[s]:,}" for s in ("train", "val", "test")))
    log.info("%s, precision %s, run folder %s", device, session.trainer.precision, session.run.folder)
    session.metrics["parameters"] = parameters


def measure_untrained(session: Session) -> None:
    """The accuracy to compare with: about one in ten. On the validation images, or else the test images."""
    split = "val" if session.cfg.data.val_size else "test"
    if split == "test" and not session.cfg.test:
        log.info("untrained: not measured, as there are no validation images and test=false")
        return
    result = measure(build_measuring_trainer(session.cfg), session.classifier, session.datamodule, split)
    session.metrics["untrained/accuracy"] = result["accuracy"].item()
    session.history.add_untrained(plain(split, result))
    log.info("untrained: accuracy %.2f%% (%s)", 100 * result["accuracy"].item(), split)


def conclude(session: Session) -> None:
    """Measures the chosen checkpoint on validation and test images, and shows the test's result."""
    cfg, run = session.cfg, session.run
    if run.chosen_checkpoint.is_file():
        weights = checkpoints.network_weights(checkpoints.load(run.chosen_checkpoint))
        session.classifier.network.load_state_dict(weights)
        session.metrics["checkpoint"] = run.chosen_checkpoint.name
    for split in ("val", "test"):
        if not (cfg.data.val_size if split == "val" else cfg.test):
            continue
        result = measure(build_measuring_trainer(cfg), session.classifier, session.datamodule, split)
        session.metrics |= plain(split, result)
        if split == "test":
            log.info(
                "test of %s:\n%s", session.metrics.get("checkpoint", "the network"), class_table(result["confusion"])
            )
            log.info("test: loss %.4f, accuracy %.2f%%", result["loss"].item(), 100 * result["accuracy"].item())


def end(session: Session, status: str) -> None:
    """Writes down what came out, however the training ended."""
    history, run = session.history, session.run
    session.metrics |= {
        "epochs": history.epochs,
        "train/seconds": history.seconds,
        "train/images_per_second": history.images_per_second,
        **{name: value for name, value in history.last.items() if name in ("train/loss", "train/accuracy")},
    }
    run.save_metrics(session.metrics)
    run.update_record(status=status, end=record.now())
    if status == "finished":
        log.info("run folder: %s", run.folder)
        log.info("curves:     tensorboard --logdir %s", session.cfg.outputs)
