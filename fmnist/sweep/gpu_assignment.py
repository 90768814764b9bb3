"""One GPU for each of several jobs that run in parallel."""

import itertools
import os
import platform
from pathlib import Path

from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"

_held: list[FileLock] = []
"""Kept for the life of the process: a lock is free again when the process has ended, however it ended."""


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, without importing torch."""
    if VISIBLE in os.environ:
        names = (name.strip() for name in os.environ[VISIBLE].split(","))
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))  # as CUDA reads it
    return [str(number) for number, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*")))]


def use_own_gpu(sweep: Path) -> None:
    """Restrict this process to one GPU, if possible one that no other job of the sweep has on this machine.

    It must be called before CUDA is first used.

    Args:
        sweep: the folder of the sweep, in which the jobs lock the GPUs that they use.
    """
    names = visible_gpus()
    if len(names) < 2 or _held:
        return
    folder = sweep / ".gpus"
    folder.mkdir(exist_ok=True)
    for jobs_on_each, name in ((count, name) for count in itertools.count() for name in names):
        lock = FileLock(folder / f"{platform.node()}_{name}_{jobs_on_each}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        _held.append(lock)
        os.environ[VISIBLE] = name
        return
