"""The jobs of a sweep on disk: a folder for each, named by what it changes, and which of them are left to do."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fmnist.config.overrides import key_of, quoted
from fmnist.runs.files import write_json
from fmnist.runs.run import Run, RunIsBusy

PLAN_FILE = "sweep.json"
LONGEST_NAME = 120  # characters; a file system allows 255 bytes, and the names of jobs are read in tables
CHANGES_NO_JOB = "sweep"  # where and how the jobs run, and the grid, which stands in the jobs themselves


@dataclass(frozen=True)
class Job:
    """One job of a sweep."""

    changes: list[str]
    """What is overridden for it and not for all: words `key=value`."""
    settings: str
    """A digest of the config that comes of it and of all that is overridden."""
    folder: str
    """Where it lies within the folder of the sweep."""

    def run(self, sweep: Path) -> Run:
        return Run(sweep / self.folder)


@dataclass(frozen=True)
class Plan:
    """Jobs of a sweep, and the words that they have in common."""

    common: list[str]
    jobs: list[Job]

    def words(self, job: Job, sweep: Path) -> list[str]:
        """Everything that is overridden for the job, and where it lies in the folder of the sweep."""
        places = {"dir": str(sweep), "subdir": job.folder}
        return [*self.common, *job.changes, *(f"hydra.sweep.{key}={quoted(value)}" for key, value in places.items())]

    def save(self, sweep: Path) -> None:
        write_json(sweep / PLAN_FILE, asdict(self))


def load_plan(sweep: Path) -> Plan | None:
    """All jobs that were ever planned in the folder of a sweep; None where no plan can be read."""
    try:
        content = json.loads((sweep / PLAN_FILE).read_text())
        return Plan(content["common"], [Job(**job) for job in content["jobs"]])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def plan_jobs(grid: Sequence[Sequence[str]], swept: Iterable[str], digests: Sequence[str]) -> Plan:
    """A plan of all combinations, in an empty folder.

    Args:
        grid: the words `key=value` of each job.
        swept: the keys that have several values.
        digests: of the config of each job.
    """
    varying = set(swept)
    common = [word for word in grid[0] if key_of(word) not in varying]
    changes = [[word for word in words if key_of(word) in varying] for words in grid]
    jobs = [Job(changed, digest, "") for changed, digest in zip(changes, digests, strict=True)]
    return with_folders(Plan(common, jobs), [])


def with_folders(plan: Plan, earlier: Sequence[Job]) -> Plan:
    """The plan where other jobs lie already: each job in the folder that the same one had, or in one of its own."""
    known = {(frozenset(job.changes), job.settings): job.folder for job in earlier}
    taken = {job.folder for job in earlier}
    jobs = []
    for job in plan.jobs:
        folder = known.get((frozenset(job.changes), job.settings))
        if folder is None:
            names = _numbered(folder_name(job.changes or plan.common))
            folder = next(name for name in names if name not in taken)
            taken.add(folder)
        jobs.append(replace(job, folder=folder))
    return Plan(plan.common, jobs)


def folder_name(words: Sequence[str]) -> str:
    """What a job changes, as the name of a folder: short enough, and of characters that no shell minds."""

    def plain(word: str) -> str:
        key, _, value = word.partition("=")
        value = re.sub(r"[^\w.+-]", "-", re.sub(r"[\[\](){}'\"\s]", "", value))
        return f"{key.lstrip('+~')}={value}"

    name = re.sub(r"[^\w.=,+-]", "-", ",".join(map(plain, words))) or "defaults"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    cut = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{cut}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def earlier_sweep(parent: Path, plan: Plan) -> Path | None:
    """The newest sweep below `parent` that `plan` goes on with: what changes nothing aside, the same words are common
    to all jobs, and no job lies there that the plan hasn't."""
    common, changes = _meaning(plan.common), _changes(plan)
    with contextlib.suppress(OSError):
        for folder in sorted(parent.iterdir(), reverse=True):
            earlier = load_plan(folder) if (folder / PLAN_FILE).is_file() else None
            if earlier and _meaning(earlier.common) == common and _changes(earlier) <= changes:
                return folder
    return None


def settle(plan: Plan, sweep: Path) -> Plan:
    """Finds a place for each job in the folder of the sweep, and notes it there."""
    known = load_plan(sweep)
    earlier = known.jobs if known else []
    settled = with_folders(plan, earlier)
    folders = {job.folder for job in settled.jobs}
    Plan(plan.common, [*(job for job in earlier if job.folder not in folders), *settled.jobs]).save(sweep)
    return settled


def state(run: Run) -> tuple[str | None, dict[str, Any]]:
    """The status of a job, and its record; a damaged record is that of a job that failed."""
    try:
        record = run.load_record()
    except ValueError as error:
        return "failed", {"error": str(error)}
    return record.get("status"), record


def note_if_cut_off(run: Run) -> None:
    """A job that says to be running, and that nobody is running, was cut off: killed, or with its machine."""
    if state(run)[0] == "running":
        with contextlib.suppress(RunIsBusy), run.locked():
            run.update_record(status="interrupted")


def discard_if_empty(sweep: Path, is_new: bool) -> bool:
    """Removes the folder of a new sweep whose jobs have left no more than notes of their failure; whether it did."""
    files = (path for path in sweep.rglob("*") if path.is_file())
    if not is_new or any(file.parent != sweep and file.name != "run.json" for file in files):
        return False
    Run(sweep).discard()
    return True


def _meaning(words: Iterable[str]) -> set[str]:
    return {word for word in words if key_of(word) != CHANGES_NO_JOB}


def _changes(plan: Plan) -> set[frozenset[str]]:
    return {frozenset(job.changes) for job in plan.jobs}


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1
