"""The newest run, as run=latest and resume=latest name it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from fmnist.runs.run import Run, RunIsBusy, open_run

log = logging.getLogger(__name__)

CHECKPOINT_SUFFIX = ".ckpt"
LATEST = "latest"
OUTPUTS = Path("outputs")
"""Where runs are looked for, in the working folder, by commands that don't choose another one."""


def is_latest(path: str) -> bool:
    """Return whether a path means the newest run; not if a file or folder has this name."""
    return path == LATEST and not Path(path).exists()


def named_run(key: str, path: str, outputs: Path = OUTPUTS, fits: Callable[[Run], bool] | None = None) -> Run:
    """Return the run that a path means, as `open_run` does; for "latest" the newest one, and log which that is.

    Args:
        key: with which the user has given the path.
        path: what the user has given.
        outputs: the folder of all runs.
        fits: which runs "latest" may mean; None takes finished ones with a checkpoint.

    Raises:
        ValueError: if there is no run.
    """
    if not is_latest(path):
        return open_run(key, path)
    for run in newest_first(outputs):
        try:
            if (fits or is_finished)(run):
                # On the standard error, as a warning is: predictions go to the other stream.
                log.warning("%s=%s: %s", key, LATEST, run.folder)
                return run
        except ValueError:
            continue  # of another program, or damaged
    kind = "no finished run" if fits is None else "no run that can be resumed"
    raise ValueError(f"{key}={LATEST}: there is {kind} in {outputs}")


def newest_first(outputs: Path) -> Iterator[Run]:
    """Yield the runs in a folder, also those of sweeps and studies, by the time of their last record."""
    records = [file for depth in ("*/*", "*/*/*") for file in outputs.glob(f"{depth}/run.json")]
    for file in sorted(records, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        yield Run(file.parent.absolute())


def is_finished(run: Run) -> bool:
    """Return whether a run has finished and has a checkpoint."""
    return run.status == "finished" and run.config_file.is_file() and run.chosen_checkpoint.is_file()


def is_resumable(run: Run, *, extended: bool, alone: bool) -> bool:
    """Return whether a run can be resumed: it was interrupted and no other process writes to it.

    Args:
        extended: a later end is asked for, so that a finished run can be resumed, too.
        alone: look for other processes; false in one that takes part in the run of another.
    """
    if not (run.was_interrupted and run.status != "pruned") and not (extended and is_finished(run)):
        return False
    if not alone:
        return True
    try:
        with run.locked():
            return True
    except RunIsBusy:
        return False


def checkpoint_file(run: str | None, checkpoint: str | None) -> Path:
    """Return the checkpoint that the user has named: a file, or the chosen one of a run, which must exist."""
    if (run is None) == (checkpoint is None):
        raise ValueError("give either run=<run folder>, run=latest or checkpoint=<file>")
    if run is not None and not (run.endswith(CHECKPOINT_SUFFIX) and Path(run).is_file()):
        return named_run("run", run).chosen_checkpoint
    return Path(checkpoint or run or "")
