"""What checkpoints hold, when they are saved, and where they are kept."""

import logging
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from fmnist.data.info import DatasetInfo
from fmnist.runs.checkpoints import CONFIG_KEY, DATASET_KEY
from fmnist.training.distributed import gather

log = logging.getLogger(__name__)


class KeepCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in one file, also after its folder was moved or copied.

    Lightning's `ModelCheckpoint` forgets its best score when the folder has another name than the checkpoint says.

    Args:
        file: where the checkpoint is kept.
        choice: arguments of ModelCheckpoint: which checkpoint, and when.
    """

    def __init__(self, file: Path, **choice: Any) -> None:
        super().__init__(file.parent, file.stem, enable_version_counter=False, **choice)
        self.file = file

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(self.file) if path else path  # never the stored one: Lightning may remove the file at this path

        paths = {name: here(state_dict[name]) for name in state_dict if name.endswith("_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "dirpath": str(self.dirpath), "best_k_models": best})


class LastCheckpoint(KeepCheckpoint):
    """Keeps the newest checkpoint: of each complete epoch, and of a training that ends within an epoch.

    The latter is saved before Lightning ends the epoch, so that a resumed training continues the epoch. An end that a
    callback asks for (early stopping, `trainer.max_time`) waits for the next step: gradients that are accumulated until
    then are in no checkpoint. Before `trainer.min_epochs` it is of its epoch only; the callbacks then decide again.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, save_on_train_epoch_end=True)
        self._should_stop = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fit_loop._can_stop_early:
            self._should_stop = trainer.should_stop = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._end_between_steps(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_between_steps(trainer)

    def _end_between_steps(self, trainer: Trainer) -> None:
        self._should_stop = self._should_stop or trainer.should_stop
        trainer.should_stop = self._should_stop and after_step(trainer)
        ends = trainer.global_step == trainer.max_steps or (trainer.should_stop and trainer.fit_loop._can_stop_early)
        if ends and between_steps(trainer) and not self._should_skip_saving_checkpoint(trainer):
            self._save_checkpoint(trainer, str(self.file))  # Lightning then saves none when it ends the epoch


def after_step(trainer: Trainer) -> bool:
    """Return whether no gradients are being accumulated after this batch of an epoch."""
    loop = trainer.fit_loop
    return (loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0 or loop.epoch_loop.batch_progress.is_last_batch


def between_steps(trainer: Trainer) -> bool:
    """Return whether a training can be resumed exactly from a checkpoint after this batch of an epoch.

    Accumulated gradients are in no checkpoint, and after the last batch of an epoch its own checkpoint follows.
    """
    return after_step(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


@dataclass(eq=False)
class RegularCheckpoint(Checkpoint):
    """Saves a checkpoint after every n-th step, or when some minutes have passed since the last one."""

    file: Path
    every_n_steps: int | None
    every_minutes: float | None
    _saved: float = field(default_factory=time.monotonic, init=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if between_steps(trainer) and self._due(trainer):
            trainer.save_checkpoint(self.file)
            self._saved = time.monotonic()

    def _due(self, trainer: Trainer) -> bool:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            return True
        if not self.every_minutes:
            return False
        due = time.monotonic() - self._saved >= 60 * self.every_minutes
        return trainer.strategy.reduce_boolean_decision(due, all=False) if trainer.world_size > 1 else due


@dataclass(eq=False)
class RunConfig(Callback):
    """Puts the resolved config and the dataset's facts into each checkpoint, and flushes the loggers before."""

    config: dict[str, Any]
    dataset: DatasetInfo

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.config
        checkpoint[DATASET_KEY] = self.dataset.to_dict()
        for logger in trainer.loggers:
            logger.save()


@dataclass(eq=False)
class RandomStates(Callback):
    """Keeps torch's random states (dropout, augmentation) in the checkpoints and restores them on resuming.

    Each of several processes has random numbers of its own. Where another number of processes resumes a run, they are
    drawn from the run's seed, the step and the rank.
    """

    seed: int
    _world_size: int = field(default=1, init=False)
    _restored: list[dict[str, Any]] | None = field(default=None, init=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._world_size = trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        state = {"cpu": torch.get_rng_state(), "cuda": cuda}
        return {"ranks": gather(state) if self._world_size > 1 else [state]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not before: setting up a training draws random numbers too.
        restored, self._restored = self._restored, None
        if restored is not None and len(restored) == self._world_size:
            state = restored[trainer.global_rank]
            torch.set_rng_state(state["cpu"].cpu())
            if state["cuda"] is not None and torch.cuda.is_initialized():
                torch.cuda.set_rng_state(state["cuda"].cpu())
        elif restored is not None or self._world_size > 1:
            if restored is not None:
                log.info("random numbers differ: %d processes now, %d before", self._world_size, len(restored))
            # Neighbouring seeds need not give independent numbers; the hash of a text is far from its neighbour's.
            torch.manual_seed(random.Random(f"{self.seed} {trainer.global_step} {trainer.global_rank}").getrandbits(63))
