"""How far the jobs are that run beside each other or elsewhere: a line for each, read off their folders."""

import csv
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fmnist.runs.run import Run
from fmnist.sweep.plan import Job, state

SECONDS_BETWEEN_LOOKS = 0.5
Note = Callable[[str, str | None], None]
ENDED = ("finished", "failed", "interrupted")


class Progress:
    """While it is entered, shows each job on a line of its own; where there is no terminal, each when it ends.

    Nothing is asked of the jobs but what they write anyway, so that it doesn't matter on which machine they run.

    Args:
        sweep: the folder of the sweep.
        jobs: those that will run.
        total: of the whole sweep, finished ones included.
        console: where the lines go.
        note: is told the folder of each job that ends, and its error where it failed.
    """

    def __init__(
        self,
        sweep: Path,
        jobs: Sequence[Job],
        total: int,
        console: Console | None = None,
        note: Note | None = None,
    ) -> None:
        self.left = {job.folder: job.run(sweep) for job in jobs}
        self.total = total
        self.ended = total - len(jobs)
        self.note = note
        self.console = console or Console()
        self.before = {name: written(run) for name, run in self.left.items()}
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.over = threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        self.watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.watch.join()
        self.look()
        self.live.stop()

    def _watch(self) -> None:
        pause = SECONDS_BETWEEN_LOOKS
        while not self.over.wait(pause):
            start = time.monotonic()
            self.look()
            # Thousands of folders, on a slow file system perhaps, are looked at less often.
            pause = max(SECONDS_BETWEEN_LOOKS, 10 * (time.monotonic() - start))

    def look(self) -> None:
        """Reads the folders once: prints the jobs that have ended, and shows those that run."""
        running = []
        for name, run in list(self.left.items()):
            if written(run) == self.before[name]:
                continue  # not begun; what may lie there is of an earlier time
            status, record = state(run)
            if status in ENDED:
                del self.left[name]
                self.ended += 1
                if self.note:
                    self.note(name, str(record.get("error")) if status == "failed" else None)
                words = last_words(run, status, record.get("error"))
                self.console.print(Text(f"{self.ended}/{self.total} {name}: {words}"), soft_wrap=True)
            else:
                running.append(f"    {name}: {last_words(run, status, None)}")
        if self.console.is_terminal:
            self.live.update(Text("\n".join(running)), refresh=True)


def written(run: Run) -> int:
    """When the job's record was written last, in nanoseconds."""
    try:
        return run.record_file.stat().st_mtime_ns
    except OSError:
        return 0


def last_words(run: Run, status: str | None, error: str | None) -> str:
    """What is known of a job, in half a line."""
    if error:
        return f"failed: {error}"
    try:
        row = list(csv.DictReader(run.history_file.read_text().splitlines()))[-1]
    except (OSError, IndexError, csv.Error):
        return "begun"
    parts = [] if status == "finished" else [str(status)] if status in ENDED else []
    parts.append(f"epoch {row.get('epoch')}")
    for phase in ("val", "train"):
        if accuracy := row.get(f"{phase}/accuracy"):
            parts.append(f"{phase} accuracy {float(accuracy):.2%}")
            break
    parts.append(f"{float(row.get('seconds') or 0):.1f} s")
    return ", ".join(parts)
