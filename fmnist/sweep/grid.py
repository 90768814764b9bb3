"""Hydra's sweeper of this project: every combination, none twice, and a comparison at the end."""

import contextlib
import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fmnist.config.overrides import key_of
from fmnist.runs.run import new_run
from fmnist.sweep.job_queue import Failed, LeftAlone, Turns, Words
from fmnist.sweep.plan import Job, Plan, discard_if_empty, earlier_sweep, note_if_cut_off, plan_jobs, settle, state
from fmnist.sweep.progress import Progress
from fmnist.sweep.size import check_size
from fmnist.sweep.summary import jobs_text, one_message, opening, tally
from fmnist.sweep.workers import StoppedAtOnce, run_beside, runs_in_turn, uses_joblib
from fmnist.training.rank_info import check_sweep

SOME_FAILED = 1
"""The exit status of a sweep in which jobs failed, or that another process has yet to end."""


class Grid(Sweeper):
    """Runs the jobs that are left of a grid, here one after the other or wherever Hydra's launcher has them run.

    The same command again goes on: in the folder that it made, jobs that are finished with the same settings are left
    alone. What becomes of a job (begun anew, or gone on with) the job itself decides by what lies in its folder.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size = max_batch_size
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        check_launcher(config.hydra.launcher)
        self.loader = hydra_context.config_loader
        self.master: Any = config
        self.job = str(config.hydra.job.config_name)
        self.hydra_context, self.task_function = hydra_context, task_function
        self.in_turn = runs_in_turn(config.hydra.launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Runs the grid; the exit status tells whether a job failed.

        Raises:
            ValueError: if no job can be run at all, or the script is not one to sweep with.
        """
        check_sweep()
        if self.job == "tune":
            raise ValueError("-m and sweep=... don't go with tuning, which chooses the values itself: see search=...")
        grid, swept = self.expand(arguments)
        plan = plan_jobs(grid, swept, self.digests(grid))
        folder, is_new = self.choose_folder(plan)
        plan = settle(plan, folder)
        left = [job for job in plan.jobs if state(job.run(folder))[0] != "finished"]
        say(opening(plan, left, folder, is_new))
        self.turns = Turns(left)
        try:
            results = self.run_jobs(plan, left, folder)
            failures = {name: result.message for name, result in results.items() if isinstance(result, Failed)}
            if len(results) < len(left) and (error := self.turns.hopeless):
                raise ValueError(
                    f"{len(results)} jobs failed alike, and none did better, so that no more begin: {error}"
                )
            if len(failures) == len(plan.jobs) and not any(job.run(folder).config_file.exists() for job in plan.jobs):
                raise ValueError(one_message([failures[job.folder] for job in plan.jobs]))
        except StoppedAtOnce:
            tally(plan, folder)
            discard_if_empty(folder, is_new)
            raise
        except BaseException:
            if self.conclude(plan, folder, is_new):
                done = f"{tally(plan, folder)}; " if self.job == "train" else ""
                say(f"{done}the same command goes on")
            raise
        self.conclude(plan, folder, is_new)
        left_alone = sum(isinstance(result, LeftAlone) for result in results.values())
        if failures:
            say(f"{len(failures)} of {jobs_text(len(plan.jobs))} failed; the same command tries them again", sys.stderr)
        if left_alone:
            them = "it" if left_alone == 1 else "them"
            say(
                f"{left_alone} of {jobs_text(len(plan.jobs))} left alone: another process is running {them}", sys.stderr
            )
        if failures or left_alone:
            sys.exit(SOME_FAILED)

    def expand(self, arguments: list[str]) -> tuple[list[list[str]], set[str]]:
        """The words of each job, and the keys that have several values."""
        parser = OverridesParser.create(config_loader=self.loader)
        given = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides([*given, *arguments])
        if any(key_of(override.input_line or "") == "resume" for override in overrides):
            raise ValueError("resume goes on with one run: leave out -m (the same sweep again goes on by itself)")
        several = {override.get_key_element(): override.is_sweep_override() for override in overrides}
        check_size(overrides, self.loader.get_group_options)
        (grid,) = BasicSweeper.split_arguments(overrides, None)
        return grid, {key_of(key) for key, is_several in several.items() if is_several}

    def digests(self, grid: Sequence[Sequence[str]]) -> list[str]:
        """A digest of the config of each job; composing them, which is slow, once for each choice of groups.

        Raises:
            HydraException: if a word is wrong.
        """
        groups = set(self.master.hydra.runtime.choices)
        composed: dict[frozenset[str], str] = {}
        found = []
        for words in grid:
            choices = frozenset(word for word in words if key_of(word) in groups)
            if choices not in composed:
                whole = self.loader.load_sweep_config(self.master, list(words))  # all jobs set the same keys
                check_sweep(processes(whole))
                base = self.loader.load_sweep_config(self.master, [word for word in words if word in choices])
                with open_dict(base):
                    del base["hydra"]
                composed[choices] = hashlib.sha256(OmegaConf.to_yaml(base).encode()).hexdigest()
            text = "\n".join([composed[choices], *sorted(word for word in words if word not in choices)])
            found.append(hashlib.sha256(text.encode()).hexdigest()[:16])
        return found

    def choose_folder(self, plan: Plan) -> tuple[Path, bool]:
        """The folder of the sweep, and whether it is a new one."""
        place = self.master.hydra.sweep.dir
        if place != "auto":
            folder = Path(place).absolute()
            is_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            return folder, is_new
        outputs, name = Path(self.master.get("outputs", "outputs")), self.master.get("name", self.job)
        earlier = earlier_sweep((outputs / name).absolute(), plan) if self.job == "train" else None
        if earlier is not None:
            return earlier, False
        return new_run(outputs, name).folder, True

    def run_jobs(self, plan: Plan, jobs: Sequence[Job], folder: Path) -> dict[str, Any]:
        """Runs the jobs, as long as there is hope; returns their results, by folder."""
        with read_write(self.master), open_dict(self.master):
            self.master.hydra.sweep.dir = str(folder)
        assert self.hydra_context is not None
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.master
        )
        numbers = {job.folder: number for number, job in enumerate(plan.jobs)}
        results: dict[str, Any] = {}
        if self.in_turn:
            for job in self.turns:
                say(f"\njob {numbers[job.folder] + 1}/{len(plan.jobs)}: {job.folder}")
                for name, result in self.launch(plan, [job], folder, numbers[job.folder]):
                    results[name] = result
                    if isinstance(result, Failed):
                        say(f"failed: {result.message}")
                    if not isinstance(result, LeftAlone):
                        self.turns.note(name, result.message if isinstance(result, Failed) else None)
        else:
            launch = self.launch_beside if uses_joblib(self.master.hydra.launcher) else self.launch
            with Progress(folder, jobs, len(plan.jobs), note=self.turns.note), in_a_line():
                results = dict(launch(plan, jobs, folder, 0))
        return results

    def launch(self, plan: Plan, jobs: Sequence[Job], folder: Path, first: int) -> Iterator[tuple[str, Any]]:
        """Has Hydra's launcher run the jobs, in batches; gives the folder and result of each."""
        assert self.launcher is not None
        size = self.max_batch_size or max(len(jobs), 1)
        for start in range(0, len(jobs), size):
            if self.turns.hopeless:
                return
            batch = jobs[start : start + size]
            words = [plan.words(job, folder) for job in batch]
            for job, done in zip(batch, self.launcher.launch(words, initial_job_idx=first + start), strict=True):
                yield job.folder, done.return_value

    def launch_beside(self, plan: Plan, _: Sequence[Job], folder: Path, first: int) -> Iterator[tuple[str, Any]]:
        """Like `launch`; joblib gets one job after the other, so that its batches may be of any size."""

        def launch() -> Sequence[JobReturn]:
            assert self.launcher is not None
            words = Words(self.turns, lambda job: plan.words(job, folder))
            return self.launcher.launch(words, initial_job_idx=first)

        def stop() -> None:
            self.turns.stopped = True
            say("interrupted: the jobs that run save their checkpoints (Ctrl-C again stops at once)")

        results = run_beside(launch, stop)
        return ((job.folder, done.return_value) for job, done in zip(self.turns.taken, results, strict=True))

    def conclude(self, plan: Plan, folder: Path, is_new: bool) -> bool:
        """Compares what the sweep has by now; where its jobs have left nothing in its new folder, that goes.

        Returns:
            Whether the folder is still there.
        """
        if discard_if_empty(folder, is_new):
            return False
        if self.job != "train":
            return True
        for job in plan.jobs:
            note_if_cut_off(job.run(folder))
        from fmnist.compare import PAGE_FILE, read_runs, write_comparison  # a second, of which --help needs nothing

        try:
            say(f"\n{write_comparison(folder, read_runs([folder]))}\npage: {folder / PAGE_FILE}")
        except ValueError as error:
            say(f"no comparison: {error}")
        return True


@contextlib.contextmanager
def in_a_line() -> Iterator[None]:
    """What a launcher raises, as of a process that was killed, as a mistake of a line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise ValueError(f"the jobs were cut off: {type(error).__name__}: {reason}") from error


def processes(cfg: DictConfig) -> int:
    """How many each job would have, as far as the config says it in numbers."""
    asked = [OmegaConf.select(cfg, f"trainer.{name}") for name in ("devices", "num_nodes")]
    return math.prod(number for number in asked if isinstance(number, int) and number > 0)


def check_launcher(node: DictConfig) -> None:
    """Refuses what the launcher would only find out when it runs.

    Raises:
        ValueError: naming the key.
    """
    number = node.get("n_jobs", 1)
    if number == 0 or number < -1:
        raise ValueError(
            f"hydra.launcher.n_jobs={number}: it should be at least 1, or -1 for as many as there are cores"
        )


def say(line: str, stream: Any = None) -> None:
    """A line of the sweep itself; those of the jobs go through their logs."""
    print(line, file=stream, flush=True)
