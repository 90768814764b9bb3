"""Callbacks that look at the clock, and at the memory."""

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import nn
from torch.optim import Optimizer

from fmnist.runs.files import atomic_write
from tools.benchmarks.processes import resident_mib

STAMPS = "FMNIST_STAMPS"
"""The environment's variable that names the file of `Stamps`."""
PARTS = ("input", "forward", "backward", "optimizer", "rest")
"""Of a training step; the rest is loss, metrics, logging, the schedule and the Trainer."""


class EpochClock(Checkpoint):
    """The seconds of the last training epoch, its metrics and its row in the history included.

    (It is a `Checkpoint` as Lightning calls those last: after the module has logged the epoch's metrics. Before the
    checkpoints are written, if it was added before them.)
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self._start


class StepClock(Callback):
    """Where the time of the training steps goes, on the CPU, where a call returns when its work is done.

    Args:
        skip: steps at the beginning that don't count.
    """

    def __init__(self, skip: int = 0) -> None:
        self.skip = skip
        self.steps = 0
        """Steps that count."""
        self.seconds = 0.0
        """In all of these, from the end of one step to the end of the next."""
        self.parts = dict.fromkeys(PARTS[:-1], 0.0)
        self._begun: dict[str, float] = {}
        self._handles: list[Any] = []
        self._step_end = 0.0

    def per_step(self) -> dict[str, float]:
        """Seconds of each of `PARTS` in a step."""
        steps = max(self.steps, 1)
        rest = self.seconds - sum(self.parts.values())
        return {part: seconds / steps for part, seconds in {**self.parts, "rest": rest}.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network, optimizer = pl_module.network, trainer.optimizers[0]
        assert isinstance(network, nn.Module)
        self._handles = [
            network.register_forward_pre_hook(lambda *_: self._begin("forward")),
            network.register_forward_hook(lambda *_: self._end("forward")),
            optimizer.register_step_post_hook(lambda *_: self._end("optimizer")),
        ]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step_end = time.perf_counter()
        self._begin("input")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._end("input")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        self._begin("backward")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end("backward")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._begin("optimizer")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self.skip:
            self.skip -= 1
            self.parts = dict.fromkeys(self.parts, 0.0)
        else:
            self.steps += 1
            self.seconds += now - self._step_end
        self._step_end = now
        self._begin("input")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, part: str) -> None:
        self._begun[part] = time.perf_counter()

    def _end(self, part: str) -> None:
        self.parts[part] += time.perf_counter() - self._begun[part]


class Stamps(Callback):
    """Writes down when the first training step and the training ended, by `time.monotonic()`.

    For the process that has started this one, which names the file by the environment, as a run's config, that may be
    anybody's, names none: JSON, `first_step`, `trained` and `resident_mib`.

    Args:
        memory: whether to write down also the memory that there is after each epoch, where the system tells it.
    """

    def __init__(self, memory: bool = False) -> None:
        self.file = Path(os.environ[STAMPS])
        self.memory = memory
        self.stamps: dict[str, float] = {}
        self.resident: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stamps.setdefault("first_step", time.monotonic())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.memory:
            gc.collect()  # figures that wait to be found come and go by 100 MiB, in which a leak would be lost
            self.resident += filter(None, [resident_mib()])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stamps["trained"] = time.monotonic()
        atomic_write(self.file, json.dumps({**self.stamps, "resident_mib": self.resident}))
