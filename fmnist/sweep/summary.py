"""The end of a sweep: its comparison, what has become of its jobs, and the exit status."""

import contextlib
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fmnist.config.messages import USER_ERRORS
from fmnist.runs.run import Run, RunIsBusy
from fmnist.sweep.job import Outcome, ended_here, read_outcomes
from fmnist.sweep.workers import STOP_FILE

SOME_FAILED = 1
"""The exit status of a sweep in which jobs failed, or of which another process runs some jobs."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that is running."""

    command: str
    folder: Path
    is_new: bool
    jobs: int
    outcomes: Path | None
    """The folder where the jobs write how they have ended; None where they run in this process."""

    def end(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        """Conclude the sweep, however its command ends.

        Raises:
            SystemExit: with status 1 if jobs have failed or are running elsewhere.
            ValueError: if no job could run, or the processes of the jobs have died.
            KeyboardInterrupt: after Ctrl-C in a parallel sweep.
        """
        ended, stopped = self._collect()
        failed = [outcome for outcome in ended if outcome.status == "failed"]
        is_removed = self._remove_if_empty()
        if not ended and (is_removed or isinstance(error, USER_ERRORS)):  # no job has begun
            if stopped:
                raise KeyboardInterrupt
            return
        begun = [Run(self.folder / outcome.folder).config_file.exists() for outcome in failed]
        if error is None and len(failed) == self.jobs and not any(begun):
            errors = [str(outcome.error) for outcome in failed]
            others = len(set(errors)) - 1
            raise ValueError(errors[0] + (f" (and {others} more such errors)" if others else ""))
        killed = isinstance(error, Exception) and not isinstance(error, USER_ERRORS) and len(ended) < self.jobs
        if self.command == "train" and not is_removed:
            if killed:
                self._mark_interrupted()
            self._compare()
        complete = sum(outcome.status in ("finished", "already finished") for outcome in ended) == self.jobs
        if self.command == "train" or not complete:
            hint = "" if complete else "; the same command runs the rest"
            exits_with_1 = not complete and not error and not stopped
            line = tally(ended, self.jobs, rest="not finished" if killed else "not started") + hint
            print(line, file=sys.stderr if exits_with_1 else sys.stdout, flush=True)
        if stopped:
            raise KeyboardInterrupt
        if killed:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise ValueError(f"the jobs were killed: {type(error).__name__}: {reason}") from error
        if error is None and not complete:
            sys.exit(SOME_FAILED)

    def _collect(self) -> tuple[list[Outcome], bool]:
        """Return how the jobs have ended, and whether Ctrl-C has stopped their workers."""
        if self.outcomes is None:
            return list(ended_here), False
        ended, stopped = read_outcomes(self.outcomes), (self.outcomes / STOP_FILE).exists()
        shutil.rmtree(self.outcomes, ignore_errors=True)
        return ended, stopped

    def _remove_if_empty(self) -> bool:
        """Remove a new folder in which there is nothing but notes of failures; return whether it was so."""
        notes = {"multirun.yaml", "run.json"}  # Hydra's own, and the jobs'
        files = (path for path in self.folder.rglob("*") if path.is_file())
        if not self.is_new or any(file.name not in notes and ".gpus" not in file.parts for file in files):
            return False
        Run(self.folder).discard()
        return True

    def _mark_interrupted(self) -> None:
        """Record as interrupted the jobs that were running when they were killed."""
        for record in self.folder.glob("*/run.json"):
            run = Run(record.parent)
            with contextlib.suppress(RunIsBusy, ValueError, OSError), run.locked():
                if run.status == "running":
                    run.update_record(status="interrupted")

    def _compare(self) -> None:
        from fmnist.compare import PAGE_FILE, read_runs, write_comparison  # a second, which --help doesn't need

        try:
            print(f"\n{write_comparison(self.folder, read_runs([self.folder]))}")
            print(f"page:   {self.folder / PAGE_FILE}\ncurves: tensorboard --logdir {shlex.quote(str(self.folder))}")
        except ValueError as error:
            print(f"no comparison: {error}")


def jobs_text(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"


def tally(ended: Sequence[Outcome], jobs: int, rest: str) -> str:
    """Return how many jobs have ended in which way, in a line; the others are the `rest`."""
    counts = Counter(outcome.status for outcome in ended)
    parts = [f"{count} {status}" for status, count in sorted(counts.items())]
    if len(ended) < jobs:
        parts.append(f"{jobs - len(ended)} {rest}")
    return f"{jobs_text(jobs)}: {', '.join(parts)}"
