"""Trackers besides TensorBoard, each in a thread of its own: a training neither waits for one nor ends with it."""

import importlib
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from fmnist.config.errors import one_line
from fmnist.runs.run import Run
from fmnist.training.loggers import VARIABLES, Place, TrackerLogger

log = logging.getLogger(__name__)

SECRETS = re.compile(r"_(API_KEY|TOKEN|PASSWORD)$")
"""Variables whose values no message may hold."""
IMPORTING = threading.Lock()
"""Held while a tracker's package is imported: two threads may find what the other has half imported."""
Task = Callable[[TrackerLogger], None]


class MakeLogger(Protocol):
    """Makes the logger of a tracker in a run's place."""

    def __call__(self, *, place: Place) -> TrackerLogger: ...


class Tracker(Logger):
    """Hands everything on to the logger of a tracker, which is made in a thread when the first thing is logged.

    Where that fails, or takes too long, a warning says so, and what follows is dropped.

    Args:
        key: of the tracker in the config, for messages.
        make: makes the logger.
        package: what the logger imports.
        run: the run, whose record keeps the tracker's own name of it.
        outputs: the folder of all runs.
        first_step: the optimizer step at which a resumed training begins.
        patience: seconds without anything done after which the end of the run isn't kept waiting any more.
    """

    def __init__(
        self,
        key: str,
        make: MakeLogger,
        package: str | None,
        run: Run,
        outputs: Path,
        first_step: int | None,
        patience: float,
    ) -> None:
        super().__init__()
        self.key = key
        self.make = make
        self.package = package
        self.run = run
        self.outputs = outputs
        self.first_step = first_step
        self.patience = patience
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given = self._done = 0  # tasks
        self._last_done = 0.0  # by the clock
        self._dropped = False

    @property
    def name(self) -> str:
        return self.key

    @property
    def version(self) -> None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        self._do(lambda logger: logger.log_metrics(values, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._do(lambda logger: logger.log_settings(params))

    @rank_zero_only
    def log_file(self, file: Path) -> None:
        self._do(lambda logger: logger.log_file(file))

    def finalize(self, status: str) -> None:
        """Do nothing at the end of a fit, which isn't that of the run."""

    @rank_zero_only
    def close(self, status: str | None = None) -> None:
        """End the tracker's run, and wait for what is left as long as something gets done.

        Args:
            status: of the run: finished, interrupted, pruned or failed; None where another process continues it.
        """
        if self._thread is None:
            return
        self._do(lambda logger: logger.end(status))
        self._tasks.put(None)
        thread, self._thread = self._thread, None
        try:
            while thread.is_alive() and (left := self._last_done + self.patience - time.monotonic()) > 0:
                thread.join(min(left, 1.0))
        finally:
            if thread.is_alive():
                self._drop(f"no answer for {self.patience:.0f} seconds")

    def _do(self, task: Task) -> None:
        if self._dropped:
            return
        if self._thread is None:
            self._tasks = queue.SimpleQueue()
            self._thread = threading.Thread(target=self._work, args=(self._tasks,), name=self.key, daemon=True)
            self._thread.start()
        if self._done == self._given:  # it had nothing to do
            self._last_done = time.monotonic()
        self._given += 1
        self._tasks.put(task)

    def _work(self, tasks: queue.SimpleQueue[Task | None]) -> None:
        """Make the logger, and do one task after the other."""
        try:
            logger = self._open()
            for task in iter(tasks.get, None):
                task(logger)
                self._done += 1
                self._last_done = time.monotonic()
        except BaseException as error:  # a library may also call sys.exit
            self._drop(one_line(error) or type(error).__name__)

    def _open(self) -> TrackerLogger:
        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)
        known = self.run.trackers.get(self.key)
        known = known if isinstance(known, str) and re.fullmatch(r"[\w-]{1,64}", known) else None
        with IMPORTING:
            if package := self.package:
                importlib.import_module(package)
        logger = self.make(place=Place(self.run.folder, self.outputs, known, self.first_step))
        logger.begin()
        self.first_step = None
        if logger.tracker_id != known and not self._dropped:
            self.run.update_trackers(**{self.key: logger.tracker_id})
        self._last_done = time.monotonic()
        return logger

    def _drop(self, reason: str) -> None:
        """Say once why nothing more is logged here."""
        if not self._dropped:
            self._dropped = True
            log.warning("logger=%s: %s; the run continues without it", self.key, without_secrets(reason))


def trackers(trainer: Trainer) -> list[Tracker]:
    """Return the trackers of a Trainer; none in a trial run of one batch."""
    return [logger for logger in trainer.loggers if isinstance(logger, Tracker)]


def final_metrics(metrics: Mapping[str, Any], prefix: str = "final") -> dict[str, float]:
    """Return the numbers of metrics.json by name: final/test/accuracy, final/test/accuracy_per_class/Bag."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= final_metrics(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}/{name}"] = value
    return found


def without_secrets(text: str) -> str:
    """Return a message without passwords in its addresses, and without the keys of this process's environment."""
    text = re.sub(r"://[^/@\s]+@", "://***@", text)
    for name, value in os.environ.items():
        if SECRETS.search(name) and len(value) > 3:
            text = text.replace(value, "***")
    return text
