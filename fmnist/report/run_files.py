"""The files of a run folder that a report shows, each of which may be missing or damaged."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fmnist.runs.run import Run

REPORT = "the report"


def facts(curves: Mapping[str, Sequence[tuple[float, float]]], record: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of a training by name, those that are known."""
    found = {}
    if record.get("status", "finished") != "finished":
        found["status"] = str(record["status"])
    if curves.get("seconds", [(0, 0)])[-1][0] > 0:
        epochs, seconds = curves["seconds"][-1]
        found["training"] = f"{epochs:g} {'epoch' if epochs == 1 else 'epochs'} in {seconds:,.0f} s, with validation"
    if isinstance(start := record.get("start"), str):
        found["started"] = start.replace("T", " ")
    if isinstance(hardware := record.get("hardware"), dict):
        gpus = hardware.get("gpus")
        devices = [hardware.get("cpu"), *(gpus if isinstance(gpus, list) and gpus else ["no GPU"])]
        found["machine"] = ", ".join(map(str, filter(None, devices)))
    if isinstance(precision := record.get("precision"), str):
        found["precision"] = precision
    return found


def checkpoint_fact(run: Run, monitor: str, validated: bool) -> str:
    """Return which checkpoint a report is of, and why; `validated` tells whether there are validation images."""
    if run.best_checkpoint.is_file():
        return f"{run.best_checkpoint.name}, chosen by {monitor}"
    if run.last_checkpoint.is_file():
        reason = "the training ended before the first validation" if validated else "there are no validation images"
        return f"{run.last_checkpoint.name}, as {reason}"
    return "none: the network as it was when the training ended"


def entries(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a record, level by level, as names and texts; a command is quoted as for a shell."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from entries(value, f"{name}: {key}" if name else str(key))
    elif isinstance(values, list) and all(isinstance(value, str) for value in values):
        yield name, shlex.join(values) if values else "none"
    elif isinstance(values, list):
        for number, value in enumerate(values, 1):
            yield from entries(value, f"{name} {number}")
    else:
        yield name, values if isinstance(values, str) else json.dumps(values)
