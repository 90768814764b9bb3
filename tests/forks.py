"""Runs of scripts in processes forked from one that has imported everything, so that a run takes a second.

Only for programs that do nothing else: a process that has computed something with torch, as pytest's, can't be forked.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import matplotlib.pyplot  # noqa: F401 (imported once for all)
import tensorboard.plugins.projector  # noqa: F401

import fmnist.run_training  # noqa: F401
from fmnist.config.command_line import run


def train(words: list[str], output: Path, kill_after: float | None = None) -> int:
    """Run a training that appends its output to a file, or kill it after some seconds.

    Returns:
        Its exit status, negative where a signal ended it.
    """
    sys.stdout.flush()
    if not (child := os.fork()):
        _train(words, output)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _train(words: list[str], output: Path) -> NoReturn:
    status = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = ["scripts/train.py", *words]
        run("train")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
