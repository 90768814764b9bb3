"""What has to be known about a run to trust it and to do it again."""

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "tensorboard", "numpy")


def now() -> str:
    """The time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Command, code, packages and hardware of this process."""
    return {
        "command": [sys.executable, *sys.argv],
        "working_folder": str(Path.cwd()),
        "git": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """The machine, and what of it torch uses."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def git_state(folder: Path, *parts: str) -> dict[str, Any] | None:
    """The commit, and whether the code was exactly that; nothing where there is no git or no checkout.

    Args:
        folder: in the checkout.
        parts: of it, as git's pathspecs, that are to be as they were committed; none are all.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "clean": not _git(folder, "status", "--porcelain", "--", *parts)}
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_name(told: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model, or what Python knows of it.

    A cloud may say no more than `AMD EPYC`, which processors of very different speeds are: its family and model follow.

    Args:
        told: what Linux says of it.
    """
    try:
        lines = [line.partition(":") for line in told.read_text().splitlines()]
    except OSError:
        return platform.processor()
    first = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    name = first.get("model name", platform.processor())
    if any(letter.isdigit() for letter in name) or not {"cpu family", "model"} <= first.keys():
        return name
    return f"{name} (family {first['cpu family']}, model {first['model']})"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # nosec B607 (the person's own git)
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
