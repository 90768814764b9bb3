"""One job of a sweep: run, resumed or skipped, and how it has ended."""

import contextlib
import gc
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from fmnist.config.command_line import call, load
from fmnist.config.messages import USER_ERRORS, explain
from fmnist.config.processes import INTERRUPTED
from fmnist.runs.files import atomic_write, load_json, write_json
from fmnist.runs.run import Run, RunIsBusy
from fmnist.sweep.gpu_assignment import use_own_gpu
from fmnist.sweep.workers import ANNOUNCEMENT, STOP_FILE, end_announced, interrupted_when

OUTCOME_FILES = "[!.]*.json"
Status = Literal["finished", "already finished", "failed", "interrupted", "running in another process"]


@dataclass(frozen=True)
class Outcome:
    """How a job has ended."""

    folder: str
    status: Status
    value: float | None = None
    """The monitored metric."""
    error: str | None = None
    metric: str = ""
    """The name of the value, of a training."""

    def __str__(self) -> str:
        detail = self.error or (f"{self.metric} {self.value:.4f}".lstrip() if self.value is not None else None)
        return f"{self.status}: {detail}" if detail else self.status


ended_here: list[Outcome] = []
"""The outcomes of the jobs that this process has run, one after the other."""


def run_in_sweep(job: str, cfg: DictConfig, hydra: DictConfig, raises: bool) -> float | None:
    """Run one job, and return the monitored metric where it has one.

    A training has one line on the terminal, and its warnings, as its run.log has all lines; `hydra.verbose=true` shows
    them, too. A failure is recorded and, unless `raises` is set, not raised, so that Hydra runs the other jobs.

    Raises:
        KeyboardInterrupt: after Ctrl-C, where the jobs run one after the other.
    """
    run = Run(Path(hydra.runtime.output_dir))
    if hydra.callbacks.sweep.outcomes is not None:
        return _run_in_parallel(job, cfg, hydra, run, raises)
    label = f"{hydra.job.num + 1}/{hydra.callbacks.sweep.jobs} {run.folder.name}"
    detailed = job != "train" or bool(hydra.verbose)
    print(f"\n{label}\n" if detailed else f"{label}: ", end="", flush=True)
    with contextlib.nullcontext() if detailed else _silent(but_warnings=True):
        outcome, error = _attempt(job, cfg, hydra, run)
    ended_here.append(outcome)
    if not detailed or outcome.status not in ("finished", "interrupted"):  # which the run itself has said
        print(outcome, flush=True)
    if error and (raises or isinstance(error, KeyboardInterrupt)):
        raise error
    return outcome.value


def _run_in_parallel(job: str, cfg: DictConfig, hydra: DictConfig, run: Run, raises: bool) -> float | None:
    """Run one job in a process of its own, and write its outcome where the first process finds it."""
    sweep: Any = hydra.callbacks.sweep
    outcomes, is_worker = Path(sweep.outcomes), sweep.parent is not None

    def stopped() -> bool:
        return (outcomes / STOP_FILE).exists() or os.getppid() != sweep.parent

    if is_worker and stopped():
        with contextlib.suppress(OSError):  # there is something in it
            run.folder.rmdir()
        return None
    with end_announced() as announced, _silent(), interrupted_when(stopped) if is_worker else contextlib.nullcontext():
        use_own_gpu(Path(hydra.sweep.dir))
        outcome, error = _attempt(job, cfg, hydra, run)
    if announced and outcome.status == "interrupted":
        with contextlib.suppress(Exception):  # of submitit, where the job was started again often enough
            signal.raise_signal(ANNOUNCEMENT)  # submitit has SLURM start the job again, and ends this process
    with contextlib.suppress(OSError):  # of a full disk
        write_json(outcomes / f"{hydra.job.num}.json", asdict(outcome))
    line = f"{len([*outcomes.glob(OUTCOME_FILES)])}/{sweep.jobs} {run.folder.name}: {outcome}\n"
    print(line, end="", flush=True)  # at once, as other processes write there, too
    if is_worker and os.getppid() != sweep.parent:
        os._exit(INTERRUPTED)
    if error and raises:
        raise error
    return outcome.value


def read_outcomes(folder: Path) -> list[Outcome]:
    """Return how the jobs of a parallel sweep have ended so far."""
    return [Outcome(**load_json(file)) for file in folder.glob(OUTCOME_FILES)]


@contextlib.contextmanager
def _silent(*, but_warnings: bool = False) -> Iterator[None]:
    """Keep the lines of a run off the terminal, where those of several would be mixed up; run.log has them."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.nullcontext() if but_warnings else contextlib.redirect_stderr(nowhere),
    ):
        yield


def _attempt(job: str, cfg: DictConfig, hydra: DictConfig, run: Run) -> tuple[Outcome, BaseException | None]:
    """Run the job unless it is finished; return how it has ended, and what it has raised."""
    name = run.folder.name
    try:
        for _ in range(2):  # again after the imports: they take seconds, in which another process may finish the job
            if job == "train" and run.status == "finished":
                value = _number(run.load_metrics().get(cfg.monitor))
                return Outcome(name, "already finished", value, metric=cfg.monitor), None
            load(job)
        value = _number(call(job, cfg, hydra))
        (run.folder / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
        return Outcome(name, "finished", value, metric=cfg.get("monitor", "")), None
    except RunIsBusy:
        return Outcome(name, "running in another process"), None
    except KeyboardInterrupt as error:
        return Outcome(name, "interrupted"), error
    except Exception as error:
        return Outcome(name, "failed", error=_record_failure(error, job, hydra, run)), error
    finally:
        # Trainer and callbacks refer to each other, and to 50 MB of images: Python finds such cycles late.
        gc.collect()


def _record_failure(error: Exception, job: str, hydra: DictConfig, run: Run) -> str:
    """Write a failed training's error into its folder; return it as one line."""
    invalid = isinstance(error, USER_ERRORS)
    message = explain(error, job) if invalid else f"{type(error).__name__}: {' '.join(str(error).split())}"
    with contextlib.suppress(OSError):  # of a full disk, which may be what the message says
        run.folder.mkdir(parents=True, exist_ok=True)
        is_run = run.record_file.is_file() or run.lock_file.is_file() or not any(run.folder.iterdir())
        if job == "train" and is_run:
            run.update_record(status="failed", error=message, overrides=list(hydra.overrides.task))
            if not invalid:
                atomic_write(run.folder / "error.txt", traceback.format_exc())
    return message


def _number(value: Any) -> float | None:
    return value if isinstance(value, float) else None
