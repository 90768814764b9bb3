"""Many short runs in one process: whether memory, open files or threads grow.

    python tests/many_runs.py FOLDER [--runs 200]

Prints what was tried and what grew as JSON, for each number a line fitted to the second half of the runs.
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

from fmnist.config.command_line import run as run_job

MOST = {"MiB": 0.05, "files": 0.005, "threads": 0.005}
"""Of each in a run: what is above grows."""


def sizes() -> dict[str, float]:
    """Of this process: resident memory, open files, threads of Python and of libraries."""
    gc.collect()  # a training's objects know each other: when they are found is chance
    process = Path("/proc/self")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len([*(process / "fd").iterdir()]),
        "threads": max(threading.active_count(), len([*(process / "task").iterdir()])),
    }


def main(folder: Path, runs: int) -> int:
    torch.set_num_threads(1)
    words = [*WORDS, f"data.root={synthetic.write(folder / 'data')}", f"outputs={folder / 'outputs'}"]
    courses: dict[str, list[float]] = {name: [] for name in MOST}
    failed = 0
    for _ in range(runs):
        sys.argv = ["scripts/train.py", *words, "trainer.max_epochs=1", "report=true"]
        with (folder / "output.txt").open("w") as output, contextlib.redirect_stdout(output):
            try:
                run_job("train")
            except SystemExit:
                failed += 1
        shutil.rmtree(folder / "outputs")
        for name, value in sizes().items():
            courses[name].append(value)
    half = runs // 2
    growth = {name: round(float(np.polyfit(range(half), course[-half:], 1)[0]), 4) for name, course in courses.items()}
    grown = {name: value for name, value in growth.items() if value > MOST[name]}
    ends = {name: [round(course[half]), round(course[-1])] for name, course in courses.items()}
    print(json.dumps({"tried": runs, "failed": failed, "from_half_to_end": ends, "a_run": growth, "grown": grown}))
    return 1 if failed or grown else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    sys.exit(main(given.folder, given.runs))
