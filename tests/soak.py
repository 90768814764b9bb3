"""Half an hour of everything that may happen to runs: kills, faults, hostile files, nonsense, many runs in a row.

    python tests/soak.py [--minutes 30] [--seed N]

Ends with a table: how many were tried of each, how many survived, how many were lost. The exit status is 1 if any was.
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

from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}


@dataclass
class Outcome:
    """What came of one line of the table."""

    tried: int
    lost: list[str] = field(default_factory=list)


def program(folder: Path, name: str, *words: str) -> dict[str, object]:
    """What a program of this folder prints as JSON."""
    command = [sys.executable, str(TESTS / name), str(folder), *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    try:
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}") from None
    return found


def kills(trials: int, most: int, seed: int) -> Callable[[Path], Outcome]:
    """Runs that are killed up to so many times at random moments, and go on to the end."""

    def line(folder: Path) -> Outcome:
        found = program(folder, "kills.py", "--trials", str(trials), "--most", str(most), "--seed", str(seed))
        assert isinstance(found["lost"], dict)
        return Outcome(trials, [f"{trial}: {what}" for trial, what in found["lost"].items()])

    return line


def many_runs(runs: int) -> Callable[[Path], Outcome]:
    """Runs in one process; if anything grows, all are lost."""

    def line(folder: Path) -> Outcome:
        found = program(folder, "many_runs.py", "--runs", str(runs))
        return Outcome(runs, [f"grown: {found['a_run']}"] * runs if found["grown"] else ["failed"] * found["failed"])

    return line


def suites(*files: str, examples: int = 0) -> Callable[[Path], Outcome]:
    """Tests, slow ones included.

    Args:
        files: where they stand.
        examples: how many each of them draws and tries, if it draws any.
    """

    def line(folder: Path) -> Outcome:
        report = folder / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not browser", f"--junitxml={report}"]
        command += [f"--basetemp={folder / 'files'}", *(str(TESTS / file) for file in files)]
        environment = ENVIRONMENT | ({"FMNIST_FUZZ_EXAMPLES": str(examples)} if examples else {})
        subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, check=False)
        cases = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
        failures = [(case, found) for case in cases for found in [*case.findall("failure"), *case.findall("error")]]
        lost = [f"{case.get('name')}: {(found.text or '')[-2000:]}" for case, found in failures]
        return Outcome(len(cases) * (examples or 1), lost)

    return line


def main(minutes: float, seed: int) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also under nohup: what ignores it is part of what is tried

    def share(number: int) -> int:
        """Of what fits into half an hour."""
        return max(1, round(number * minutes / 30))

    lines = {
        "killed (kill -9) at a random moment, then resumed": kills(share(50), 1, seed),
        "killed up to three times, each time resumed": kills(share(20), 3, seed + 1),
        "processes that train one run together, one of them killed": suites("test_ranks.py"),
        "faults: disk, folder, memory, data, clock, signals, terminal": suites("test_faults.py"),
        "hostile checkpoints, configs, images, names": suites("test_trust.py", "test_checkpoints.py"),
        "wrong input": suites("test_wrong_input.py"),
        "random overrides and YAML files": suites("test_fuzz.py", examples=share(120)),
        "short runs in one process: memory, files and threads stay": many_runs(share(200)),
    }
    table = Table("", "tried", "survived", "lost", "minutes", box=None)
    lost = []
    for name, line in lines.items():
        print(f"{name} ...", flush=True)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                outcome = line(Path(folder))
            except Exception as error:
                outcome = Outcome(1, [f"it ended before its time: {error}"])
        passed = (time.monotonic() - begun) / 60
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
    sys.exit(main(given.minutes, given.seed))
