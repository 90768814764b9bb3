"""Runs of scripts in processes forked from one that has imported everything, so that a run takes a second.

Only for programs that do nothing else: a process that has computed something with torch, as pytest's, can't be forked.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (imported once for all)
import tensorboard.plugins.projector  # noqa: F401

import fmnist.train  # noqa: F401
from fmnist.config.command_line import run as run_job


def start(words: list[str], output: Path, job: str = "train") -> int:
    """Start a run that appends its output to a file; return the process id."""
    sys.stdout.flush()
    if (child := os.fork()) > 0:
        return child
    status = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = [f"scripts/{job}.py", *words]
        run_job(job)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(process: int) -> int:
    """Wait for a run; return its exit status, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(words: list[str], output: Path, kill_after: float | None = None) -> int:
    """Run a training, or kill it after some seconds; return its exit status."""
    process = start(words, output)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    return end(process)
