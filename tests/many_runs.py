"""Run many short trainings in one process, to see whether memory, open files or threads grow.

    python tests/many_runs.py FOLDER [--runs 200]

Prints the result as JSON: the growth per run is the slope of a line through the second half of the runs.
"""

import argparse
import contextlib
import gc
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import synthetic
import torch
from kills import WORDS

from fmnist.config.command_line import run as run_command

LIMITS = {"MiB": 0.05, "files": 0.005, "threads": 0.005}
"""Growth per run that is still measurement error."""


def usage() -> dict[str, float]:
    """Return this process's resident memory, open files, and threads of Python and of libraries."""
    gc.collect()  # a training's objects refer to each other: the time at which they are freed is chance
    process = Path("/proc/self")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len([*(process / "fd").iterdir()]),
        "threads": max(threading.active_count(), len([*(process / "task").iterdir()])),
    }


def main(folder: Path, runs: int) -> int:
    torch.set_num_threads(1)
    outputs = folder / "outputs"
    overrides = [*WORDS, f"data.root={synthetic.write(folder / 'data')}", f"outputs={outputs}"]
    measured: dict[str, list[float]] = {name: [] for name in LIMITS}
    failed = 0
    for _ in range(runs):
        sys.argv = ["scripts/train.py", *overrides, "trainer.max_epochs=1", "report=true"]
        with (folder / "output.txt").open("w") as output, contextlib.redirect_stdout(output):
            try:
                run_command("train")
            except SystemExit:
                failed += 1
        shutil.rmtree(outputs)
        for name, value in usage().items():
            measured[name].append(value)
    half = runs // 2
    growth = {name: round(float(np.polyfit(range(half), values[-half:], 1)[0]), 4) for name, values in measured.items()}
    grown = {name: value for name, value in growth.items() if value > LIMITS[name]}
    ends = {name: [round(values[half]), round(values[-1])] for name, values in measured.items()}
    print(json.dumps({"tried": runs, "failed": failed, "from_half_to_end": ends, "a_run": growth, "grown": grown}))
    return 1 if failed or grown else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    sys.exit(main(arguments.folder, arguments.runs))
