"""Where a run comes from: command, code, packages and hardware."""

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
    """Return the time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    return {
        "command": [sys.executable, *sys.argv],
        "working_folder": str(Path.cwd()),
        "git": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """Return the machine, and how much of it torch uses."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def git_state(folder: Path, *parts: str) -> dict[str, Any] | None:
    """Return the commit, and whether the files are as committed; None if git doesn't know the folder.

    Args:
        folder: in the checkout. An installed package inside somebody else's checkout is not part of it.
        parts: git's pathspecs of the files that count; all by default.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "clean": not _git(folder, "status", "--porcelain", "--", *parts)}
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model, followed by its family and model number.

    In a cloud processors of very different speeds share a name like `AMD EPYC`. Without Linux's `cpuinfo` the name is
    what Python knows.
    """
    try:
        first_core = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return platform.processor()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first_core.splitlines())}
    name = known.get("model name", platform.processor())
    if "cpu family" in known and "model" in known:
        name += f" (family {known['cpu family']}, model {known['model']})"
    return name


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # nosec B607 (the git of the user)
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
