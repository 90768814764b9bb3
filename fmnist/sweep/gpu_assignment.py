"""What of a machine belongs to one of several jobs beside each other."""

import itertools
import os
import platform
from pathlib import Path

from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"

_held: list[FileLock] = []
"""Kept for the life of the process: a lock is free again when the process is gone, however it ended."""


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; asked without importing torch."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*")))]


def jobs_at_once() -> int:
    """How many jobs a machine runs beside each other: one on each GPU, or one on each core (-1, as joblib has it)."""
    return len(gpus()) or -1


def use_own_gpu(sweep: Path) -> None:
    """Leaves this process, for its life, one GPU: one that no other job of the sweep has on this machine, if possible.

    It has to be called before CUDA is first used.

    Args:
        sweep: the folder of the sweep, where the processes see each other's choices.
    """
    names = gpus()
    if len(names) < 2 or _held:
        return
    folder = sweep / ".gpus"
    folder.mkdir(exist_ok=True)
    for round_, name in ((round_, name) for round_ in itertools.count() for name in names):
        lock = FileLock(folder / f"{platform.node()}_{name}_{round_}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        _held.append(lock)
        os.environ[VISIBLE] = name
        return
