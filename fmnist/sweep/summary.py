"""What a sweep says of its jobs, in a line."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fmnist.sweep.plan import Job, Plan, note_if_cut_off, state

NOT_BEGUN, ELSEWHERE = "not begun", "running in another process"
ORDER = ("finished", "interrupted", "failed", ELSEWHERE, NOT_BEGUN)


def jobs_text(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def opening(plan: Plan, left: Sequence[Job], folder: Path, is_new: bool) -> str:
    """What is going to happen."""
    if is_new:
        return f"{jobs_text(len(plan.jobs))} in {folder}"
    done = len(plan.jobs) - len(left)
    more = f"going on with {len(left)}" if left else "nothing is left to do (name=... of your own runs them anew)"
    are = "is" if len(plan.jobs) == 1 else "are"
    return f"{done} of {jobs_text(len(plan.jobs))} {are} finished in {folder}: {more}"


def tally(plan: Plan, folder: Path) -> str:
    """How many jobs have come how far; those that were cut off are noted as interrupted."""
    counts: Counter[str] = Counter()
    for job in plan.jobs:
        run = job.run(folder)
        note_if_cut_off(run)
        status = state(run)[0] or NOT_BEGUN
        counts[ELSEWHERE if status == "running" else status] += 1
    parts = [f"{counts.pop(status)} {status}" for status in ORDER if status in counts]
    parts += [f"{number} {status}" for status, number in counts.items()]
    return f"{jobs_text(len(plan.jobs))}: {', '.join(parts)}"


def one_message(messages: Sequence[str]) -> str:
    """Why nothing could be run."""
    others = len(set(messages)) - 1
    return messages[0] + (f" (and {others} more such mistakes)" if others else "")
