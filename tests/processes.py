"""Real processes, as the tests of distributed runs and of faults start them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import IO

STARTED: list["Started"] = []
"""What a test has started, to be ended with it."""
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
        self._readers = [threading.Thread(target=_read, args=pair, daemon=True) for pair in pipes]
        for reader in self._readers:
            reader.start()

    def status(self, patience: float = PATIENCE) -> int:
        """Wait for the end of it and of all that it has started; return its exit status."""
        status = self.process.wait(patience)
        for reader in self._readers:
            reader.join(patience)
            assert not reader.is_alive()
        return status

    def errors(self) -> list[str]:
        """Return the lines of the project's own errors."""
        return [line.strip() for line in self.err if "error: " in line]

    def end(self) -> None:
        """Kill it and all that it has started."""
        for pid in [*family(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        for reader in self._readers:
            reader.join(30)


def _read(pipe: IO[str], lines: list[str]) -> None:
    with pipe:
        lines.extend(pipe)


def start(folder: Path, *command: str, below: Sequence[str] = (sys.executable,), **environment: str) -> Started:
    """Start a command of Python, or of the program `below`, in a folder."""
    outer = {name: os.environ[name] for name in os.environ if not name.startswith(("SLURM_", "TORCHELASTIC", "FMNIST"))}
    process = subprocess.Popen(
        [*below, *command], cwd=folder, env={**outer, **QUIET, **environment}, stdout=PIPE, stderr=PIPE, text=True
    )
    STARTED.append(Started(process))
    return STARTED[-1]


def family(pid: int) -> list[int]:
    """Return the living processes that descend from one, the nearest first."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    parents = {int(child): int(parent) for child, parent, stat in rows if not stat.startswith("Z")}
    children, generation = [], [pid]
    while generation := [child for child, parent in parents.items() if parent in generation]:
        children += generation
    return children


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
