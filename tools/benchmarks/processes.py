"""Whole processes: their seconds and their memory."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = "from tools.benchmarks.launcher import launch; launch()"
LAST = 300  # characters of a failed process's errors
STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Ended:
    """What is known of a process that has ended; times by `time.monotonic()`."""

    seconds: float
    peak_kib: float
    status: int
    started: float
    ended: float

    @property
    def peak_mib(self) -> float:
        """The most memory that it had at a time (resident set)."""
        return self.peak_kib / 1024


def resident_mib() -> float | None:
    """The memory that this process has now (resident set); None where no file says it, as on macOS."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run_process(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Ended:
    """Runs a command to its end, or to that of this process; its output goes nowhere.

    Args:
        command: its words.
        variables: of its environment, besides those of this process.

    Raises:
        ValueError: if it fails, with the last line that it said.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **(variables or {})}
    environment.pop("HYDRA_FULL_ERROR", None)  # command_line sets it for this process alone
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
            start_new_session=True,  # a Ctrl-C is for this process, which then closes the other's input
        ) as launcher,
    ):
        assert launcher.stdout is not None
        told = launcher.stdout.read()
        ended = Ended(**json.loads(told)) if told else None
        if ended is None or ended.status:
            errors.seek(0)
            lines = errors.read().strip().splitlines() or ["it said nothing"]
            raise ValueError(f"{shlex.join(command)} failed: {lines[-1][:LAST]}")
        return ended
