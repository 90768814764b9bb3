"""Half an hour of kills, faults, hostile files, invalid input and many runs in one process.

    python tests/soak.py [--minutes 30] [--seed N]

Prints a table: how many of each were tried, survived and were lost. The exit status is 1 if any was lost.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}


@dataclass
class Outcome:
    """The counts of one row of the table, and what was lost."""

    tried: int
    lost: list[str] = field(default_factory=list)


def program(folder: Path, name: str, **options: int) -> dict[str, Any]:
    """Run a program of this folder, and return the JSON that it prints."""
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    command = [sys.executable, str(TESTS / name), str(folder), *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}") from None


def kills(folder: Path, trials: int, most: int, seed: int) -> Outcome:
    """Kill runs up to `most` times at random moments, and resume them."""
    lost = program(folder, "kills.py", trials=trials, most=most, seed=seed)["lost"]
    return Outcome(trials, [f"{trial}: {what}" for trial, what in lost.items()])


def many_runs(folder: Path, runs: int) -> Outcome:
    """Run many trainings in one process; if memory, files or threads grow, all count as lost."""
    found = program(folder, "many_runs.py", runs=runs)
    return Outcome(runs, [f"grown: {found['a_run']}"] * runs if found["grown"] else ["failed"] * found["failed"])


def suites(folder: Path, *files: str, examples: int = 0) -> Outcome:
    """Run test files, slow tests included; random tests try so many examples each."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not browser", f"--junitxml={report}"]
    command += [f"--basetemp={folder / 'files'}", *(str(TESTS / file) for file in files)]
    environment = ENVIRONMENT | ({"FMNIST_FUZZ_EXAMPLES": str(examples)} if examples else {})
    subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, check=False)
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
    failures = [(case, found) for case in cases for found in [*case.findall("failure"), *case.findall("error")]]
    lost = [f"{case.get('name')}: {(found.text or '')[-2000:]}" for case, found in failures]
    return Outcome(len(cases) * (examples or 1), lost)


def main(minutes: float, seed: int) -> int:
    def part(number: int) -> int:
        """Return the part of a number for half an hour that fits into the minutes."""
        return max(1, round(number * minutes / 30))

    rows: dict[str, Callable[[Path], Outcome]] = {
        "killed (kill -9) at a random moment, then resumed": lambda at: kills(at, part(50), 1, seed),
        "killed up to three times, each time resumed": lambda at: kills(at, part(20), 3, seed + 1),
        "processes that train one run together, one of them killed": lambda at: suites(at, "test_distributed.py"),
        "faults: disk, folder, memory, data, clock, signals, terminal": lambda at: suites(at, "test_faults.py"),
        "hostile checkpoints, configs, images, names": lambda at: suites(
            at, "test_untrusted.py", "test_checkpoints.py"
        ),
        "invalid input": lambda at: suites(at, "test_wrong_input.py"),
        "random overrides and YAML files": lambda at: suites(at, "test_fuzz.py", examples=part(180)),
        "short runs in one process: memory, files and threads stay": lambda at: many_runs(at, part(200)),
    }
    table = Table("", "tried", "survived", "lost", "minutes", box=None)
    lost = []
    for name, row in rows.items():
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                outcome = row(Path(folder))
            except Exception as error:
                outcome = Outcome(1, [f"ended too early: {error}"])
        passed = (time.monotonic() - started) / 60
        counts = (outcome.tried, outcome.tried - len(outcome.lost), len(outcome.lost))
        table.add_row(name, *(f"{count:,}" for count in counts), f"{passed:.1f}")
        lost += [f"{name}: {what}" for what in outcome.lost]
    for what in dict.fromkeys(lost):
        print(what, file=sys.stderr)
    print(f"{time.strftime('%Y-%m-%d')}, seed {seed}")
    Console(width=120).print(table)
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="about how long it may take")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the moments of the kills")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets `soak.py &` and all below it ignore Ctrl-C
    sys.exit(main(given.minutes, given.seed))
