"""Read the folders of runs."""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fmnist.config.keys import affects_result, flat_settings
from fmnist.runs import untrusted
from fmnist.runs.files import load_json
from fmnist.runs.moved_targets import update_settings
from fmnist.runs.run import Run
from fmnist.training.metric_names import PHASES

log = logging.getLogger(__name__)

FINISHED = "finished"
STATUSES = (FINISHED, "running", "interrupted", "failed", "pruned")
MAX_METRIC = 1e100  # the square is still finite
MAX_NAMED = 3  # of the folders that can't be read


@dataclass(frozen=True)
class RunResult:
    """What a comparison uses of a run."""

    folder: Path
    status: str
    """One of `STATUSES`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Values that affect the result, by dotted key, as `setting_text` writes them."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Option by group. Empty if run.json has none."""
    seed: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """By name: val/loss, val/accuracy_per_class/Bag, train/seconds, ... NaN for infinite values."""
    epochs: int = 0
    ended: str = ""
    """ISO 8601; the start of a run that hasn't ended."""
    error: str = ""


def read_runs(folders: Sequence[Path]) -> list[RunResult]:
    """Return each run in or below the folders once, in natural order. Runs that can't be read are logged and left out.

    Raises:
        ValueError: if a folder doesn't exist, or there are no runs.
    """
    runs, problems = [], []
    for folder in find_runs(folders):
        try:
            runs.append(read_run(folder))
        except (ValueError, TypeError, OSError, RecursionError, yaml.YAMLError) as error:
            reason = " ".join(str(error).replace(f"{folder}{os.sep}", "").split())
            problems.append(f"{folder} ({reason})")
    reasons = ", ".join(problems[:MAX_NAMED])
    if len(problems) > MAX_NAMED:
        reasons += f" and {len(problems) - MAX_NAMED:,} more"
    if not runs:
        where = ", ".join(map(str, folders))
        raise ValueError(f"{where}: no run can be read: {reasons}" if problems else f"{where}: there are no runs")
    if problems:
        log.warning("left out: %s", reasons)
    return runs


def find_runs(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield each run folder in or below the given ones once, however many links lead to it; none inside a run.

    Raises:
        ValueError: if a folder doesn't exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"runs={folder}: there is no such folder")
    seen: set[str] = set()
    for folder in folders:
        for path, names, files in os.walk(os.path.abspath(folder), onerror=_warn, followlinks=True):  # noqa: PTH100
            real_path = os.path.realpath(path)
            is_run = "run.json" in files or "config.yaml" in files
            if is_run and real_path not in seen:
                yield Path(path)
            go_deeper = not is_run and real_path not in seen
            seen.add(real_path)
            visible = [name for name in names if not name.startswith(".")]
            names[:] = sorted(visible, key=natural) if go_deeper else []


def _warn(error: OSError) -> None:
    log.warning("%s can't be searched: %s", error.filename, error.strerror)


def natural(text: str) -> list[str | int]:
    """Return a sort key that places "job 2" before "job 10"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def read_run(folder: Path) -> RunResult:
    """Return the run in a folder.

    Raises:
        ValueError: if a file is missing, damaged or of another version.
    """
    run = Run(folder)
    record, metrics = _load(run.record_file), _load(run.metrics_file)
    status = record.get("status")
    if status not in STATUSES:
        raise ValueError(f"{run.record_file.name} has no status" if status is None else f"its status is {status!r}")
    settings = _settings(run, record)
    if status == FINISHED and not settings:
        raise ValueError(f"no {run.config_file.name}")
    if status == FINISHED and not metrics:
        raise ValueError(f"no {run.metrics_file.name}")
    choices, epochs, error = record.get("choices"), metrics.get("epochs"), record.get("error")
    return RunResult(
        folder=folder,
        status=status,
        settings={key: setting_text(key, value) for key, value in settings.items() if affects_result(key)},
        choices={key: str(option) for key, option in choices.items()} if isinstance(choices, dict) else {},
        seed=str(settings.get("seed", "")),
        metrics=_metrics(metrics),
        epochs=epochs if isinstance(epochs, int) else run.epochs,
        ended=str(record.get("end") or record.get("start")),
        error="" if error is None else " ".join(str(error).split()),
    )


def _load(file: Path) -> dict[str, Any]:
    if file.is_file() and file.stat().st_size > untrusted.MAX_CHARACTERS:
        raise ValueError(f"{file} is larger than {untrusted.MAX_CHARACTERS:,} bytes")
    return load_json(file)


def _settings(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat config that run.json holds, or that of config.yaml for runs of earlier versions."""
    settings, file = record.get("settings"), run.record_file
    try:
        if settings is not None:
            untrusted.check_plain(settings)
        elif run.config_file.is_file():
            file = run.config_file
            settings = yaml.load(untrusted.read_yaml(file), untrusted.Loader)  # nosec B506 (a safe loader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file.name} can't be read: {error}") from error
    flat = update_settings(flat_settings(settings or {}))
    if flat and (dataset := record.get("dataset")):
        flat["dataset"] = hashlib.sha256(json.dumps(dataset, sort_keys=True).encode()).hexdigest()[:8]
    return flat


def setting_text(key: str, value: Any) -> str:
    """Return a value as text, as it is typed. Equal settings have equal texts: 1 is 1.0, but 1 isn't true.

    The Trainer's values keep their type: of its limits, 1 is one batch and 1.0 is all batches.
    """
    if isinstance(value, str) and value and value.isprintable():
        return value
    if isinstance(value, float) and value.is_integer() and not key.startswith("trainer."):
        value = int(value)
    return json.dumps(value, default=str)


def _metrics(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of metrics.json by name; its other entries are left out.

    Raises:
        ValueError: if a metric isn't a number.
    """
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name.partition("/")[0] in PHASES:
            per_class = isinstance(value, dict)
            flat |= {f"{name}/{key}": item for key, item in value.items()} if per_class else {name: value}
    for name, value in flat.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} is not a number: {str(value)[:30]!r}")
    return {name: value if value is not None and abs(value) < MAX_METRIC else math.nan for name, value in flat.items()}
