"""Runs of several real processes, as the tests of fmnist.training.ranks start them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

STARTED: list["Started"] = []
"""All that a test has started, to be ended with it."""
SCRIPT = Path(__file__).parent.parent / "scripts" / "train.py"
PATIENCE = 240.0  # seconds for a run: the imports of a process take many, on a busy machine
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(SCRIPT.parent.parent)}


@dataclass
class Started:
    """A process whose lines are read while it runs."""

    process: subprocess.Popen[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        pipes = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self._readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in pipes]
        for reader in self._readers:
            reader.start()

    def status(self, patience: float = PATIENCE) -> int:
        """How it ended."""
        status = self.process.wait(patience)
        for reader in self._readers:
            reader.join(patience)  # until all that it has started have ended, too
            assert not reader.is_alive()
        return status

    def errors(self) -> list[str]:
        """The lines of the project's own errors."""
        return [line.strip() for line in self.err if "error: " in line]

    def end(self) -> None:
        """Ends it and all that it has started."""
        for pid in [*family(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
        for reader in self._readers:
            reader.join(30)


def read(pipe: IO[str], lines: list[str]) -> None:
    """All lines, while they come."""
    with pipe:
        lines.extend(pipe)


def start(folder: Path, *command: str, below: Sequence[str] = (sys.executable,), **environment: str) -> Started:
    """A command of Python's, or of another program, in a folder."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC", "FMNIST"))
    }
    process = subprocess.Popen(
        [*below, *command],
        cwd=folder,
        env={**clean, **QUIET, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(Started(process))
    return STARTED[-1]


def family(pid: int) -> list[int]:
    """The living processes that descend from one, the nearest first."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    parents = {int(child): int(parent) for child, parent, stat in rows if not stat.startswith("Z")}
    children, generation = [], [pid]
    while generation := [child for child, parent in parents.items() if parent in generation]:
        children += generation
    return children


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Until it holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
