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

    Its family and model follow, by number: a cloud may say no more than `AMD EPYC` or `Intel(R) Xeon(R) CPU @ 2.20GHz`,
    which processors of very different speeds are.

    Args:
        told: what Linux says of each core.
    """
    try:
        first_core = told.read_text().partition("\n\n")[0]
    except OSError:
        return platform.processor()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first_core.splitlines())}
    name = known.get("model name", platform.processor())
    if "cpu family" in known and "model" in known:
        name += f" (family {known['cpu family']}, model {known['model']})"
    return name


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # nosec B607 (the person's own git)
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
