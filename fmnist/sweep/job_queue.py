"""Which job of a sweep comes next, and whether any should."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fmnist.sweep.plan import Job

HOPELESS = 3  # jobs that fail alike, before any other has ended: so would the rest


@dataclass(frozen=True)
class Failed:
    """What a job of a sweep returns where it would have raised: the sweep goes on."""

    message: str


@dataclass(frozen=True)
class LeftAlone:
    """What a job of a sweep returns that another process is running."""


class Turns:
    """The jobs in their order, until it is stopped or shown that they all fail.

    While all that have ended have failed, those that share least with them are tried first: three that share no value
    of the grid, and fail alike, have a mistake in what all jobs have in common.

    Args:
        jobs: those that are left to do.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = {job.folder: job for job in jobs}
        self.taken: list[Job] = []
        """In the order in which they were given out, the last time somebody went through them."""
        self.stopped = False
        self._failed: dict[str, str] = {}
        self._one_did_better = False

    def note(self, folder: str, error: str | None) -> None:
        """How a job has ended; None is anything but a failure."""
        if error is None:
            self._one_did_better = True
        elif folder in self.jobs:
            self._failed[folder] = error

    @property
    def hopeless(self) -> str | None:
        """The error with which the jobs fail, where there is no point in trying more of them."""
        failed = dict(self._failed)
        if self._one_did_better or len(failed) < HOPELESS or len(set(failed.values())) > 1:
            return None
        shared = set.intersection(*(set(self.jobs[folder].changes) for folder in failed))
        return None if shared else next(iter(failed.values()))

    def __iter__(self) -> Iterator[Job]:
        self.taken, left = [], deque(self.jobs.values())
        while left and not self.stopped and not self.hopeless:
            if self._failed and not self._one_did_better:
                words = [word for folder in list(self._failed) for word in self.jobs[folder].changes]
                job = min(left, key=lambda job: sum(words.count(word) for word in job.changes))
                left.remove(job)
            else:
                job = left.popleft()
            self.taken.append(job)
            yield job


class Words(Sequence[list[str]]):
    """What is overridden for each job; as joblib takes them one by one, it can be told late which comes next."""

    def __init__(self, turns: Turns, of_job: Callable[[Job], list[str]]) -> None:
        self.turns, self.of_job = turns, of_job

    def __len__(self) -> int:
        return len(self.turns.jobs)

    def __getitem__(self, index: Any) -> Any:
        return [self.of_job(job) for job in self.turns.jobs.values()][index]

    def __iter__(self) -> Iterator[list[str]]:
        return map(self.of_job, self.turns)
