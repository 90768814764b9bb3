"""Run folders, thousands of them, as plain values."""

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fmnist.compare.settings import read_config, settings_of
from fmnist.runs.run import Run
from fmnist.training.metric_names import PHASES

log = logging.getLogger(__name__)

FINISHED = "finished"
STATUSES = (FINISHED, "running", "interrupted", "failed", "pruned")
LARGEST = 1e100  # number that can still be squared; JSON has no word for infinity
NAMED = 3  # of the folders that are left out


@dataclass(frozen=True)
class RunResult:
    """What a comparison has to know of a run."""

    folder: Path
    status: str
    """One of `STATUSES`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By dotted key; what makes no difference isn't among them."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Option by group; empty where the run doesn't say it."""
    overrides: Sequence[str] = ()
    seed: Any = None
    monitor: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the chosen checkpoint, by the names of `fmnist.training.metric_names.metric_names`; and train/seconds."""
    epochs: int | None = None
    ended: float = -math.inf
    """Seconds since 1970, or when it began where it hasn't ended."""
    error: str | None = None


def read_runs(folders: Sequence[Path]) -> list[RunResult]:
    """Every run in or below the folders, once, in their natural order; what can't be read is named in a warning.

    Raises:
        ValueError: if a folder isn't there, or there are no runs.
    """
    runs, left_out = [], []
    for folder in find_runs(folders):
        try:
            runs.append(read_run(folder))
        except (ValueError, OSError, RecursionError) as error:
            left_out.append(f"{shown(folder)} ({_in_a_line(error, folder)})")
    more = f" and {len(left_out) - NAMED:,} more" if len(left_out) > NAMED else ""
    reasons = ", ".join(left_out[:NAMED]) + more
    if not runs:
        where = ", ".join(map(str, folders))
        raise ValueError(f"{where}: no run can be read: {reasons}" if left_out else f"{where}: there are no runs")
    if left_out:
        log.warning("left out: %s", reasons)
    return runs


def find_runs(folders: Sequence[Path]) -> Iterator[Path]:
    """The run folders in or below the given ones, each once however many ways lead there; none inside a run.

    Raises:
        ValueError: if a folder isn't there.
    """
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"runs={folder}: there is no such folder")
    for folder in folders:
        yield from _below(Path(os.path.abspath(folder)), seen)  # noqa: PTH100 - links stay what they are called


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as scan:
            entries = {entry.name: entry for entry in scan}
    except OSError as error:
        log.warning("%s can't be looked into: %s", shown(folder), error.strerror)
        return
    run = Run(folder)
    if run.config_file.name in entries or run.record_file.name in entries:
        yield folder
        return
    inside = [entry for entry in entries.values() if not entry.name.startswith(".") and entry.is_dir()]
    for entry in sorted(inside, key=lambda entry: (entry.is_symlink(), natural(entry.name))):
        yield from _below(folder / entry.name, seen)


def natural(text: str) -> list[str | int]:
    """Sorts job 2 before job 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def read_run(folder: Path) -> RunResult:
    """What the folder says.

    Raises:
        ValueError: if it is half-written, damaged or of another version.
    """
    run = Run(folder)
    record = run.load_record()
    status = record.get("status")
    if status not in STATUSES:
        raise ValueError(f"{run.record_file.name} has no status" if status is None else f"its status is {status!r}")
    config: dict[str, Any] = {}
    if run.config_file.is_file():
        try:
            config = read_config(run.config_file.read_text())
        except ValueError as error:
            raise ValueError(f"{run.config_file.name} can't be read: {error}") from error
    elif status == FINISHED:
        raise ValueError(f"no {run.config_file.name}")
    saved = run.load_metrics()
    if status == FINISHED and not saved:
        raise ValueError(f"no {run.metrics_file.name}")
    problem, choices, monitor = record.get("error"), record.get("choices"), config.get("monitor")
    return RunResult(
        folder=folder,
        status=status,
        settings=settings_of(config, record.get("dataset")),
        choices=_texts(choices) if isinstance(choices, dict) else {},
        overrides=[str(word) for word in record["overrides"]] if isinstance(record.get("overrides"), list) else (),
        seed=config.get("seed"),
        monitor=monitor if isinstance(monitor, str) else None,
        metrics=dict(_numbers(saved)),
        epochs=saved["epochs"] if isinstance(saved.get("epochs"), int) else _epochs(run),
        ended=_time(record.get("end") or record.get("start")),
        error=" ".join(str(problem).split()) if problem is not None else None,
    )


def _numbers(saved: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The metrics; NaN for those that JSON has no word for.

    Raises:
        ValueError: if one isn't a number.
    """
    for key, value in saved.items():
        name = f"{prefix}{key}"
        if name.partition("/")[0] not in PHASES:
            continue
        if isinstance(value, dict):
            yield from _numbers(value, f"{name}/")
        elif value is None:
            yield name, math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value) if abs(value) < LARGEST else math.nan
        else:
            raise ValueError(f"{name} is not a number: {str(value)[:30]!r}")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): value for key, value in values.items() if isinstance(value, str)}


def _epochs(run: Run) -> int | None:
    """By the table of a run that hasn't written its metrics yet."""
    try:
        return run.epochs
    except (OSError, ValueError):
        return None


def _time(text: Any) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return -math.inf


def _in_a_line(error: BaseException, folder: Path) -> str:
    """What is wrong, without repeating where."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return " ".join(text.replace(f"{folder}{os.sep}", "").split())


def shown(folder: Path) -> str:
    """The folder as a person would type it: from here, where it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) and folder != here else str(folder)
