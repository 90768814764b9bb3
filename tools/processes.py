"""Run a command as a process, and measure its time and memory."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]

# Linux counts the memory of the process that starts a command as the command's own peak. So a small Python starts it.
LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.time()
status = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
ended = time.time()
kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
print(json.dumps({"status": status, "started": started, "ended": ended, "peak_mib": kib / 1024}))
"""


@dataclass(frozen=True)
class Finished:
    """What was measured of a process."""

    status: int
    started: float
    """Seconds, as `time.time()`."""
    ended: float
    peak_mib: float
    """The largest resident set."""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


def run_process(command: Sequence[str], keep_open: Sequence[int] = ()) -> Finished:
    """Run a command to its end, without its output. It is killed when this process gets an exception.

    Args:
        command: the program and its arguments.
        keep_open: file descriptors that stay open as long as the process lives.

    Raises:
        ValueError: if the command fails, with the last line of its stderr.
    """
    with subprocess.Popen(
        [sys.executable, "-S", "-c", LAUNCHER, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        text=True,
        start_new_session=True,
        pass_fds=keep_open,
    ) as launcher:
        try:
            out, errors = launcher.communicate()
        except BaseException:
            os.killpg(launcher.pid, signal.SIGKILL)  # the launcher and the command
            raise
    finished = Finished(**json.loads(out)) if out else None
    if finished is None or finished.status:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"{shlex.join(command)} failed: {last}")
    return finished
