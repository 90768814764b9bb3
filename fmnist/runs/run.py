"""The folder of a run: its config, checkpoints, metrics and record."""

import contextlib
import itertools
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from fmnist.config.errors import one_line
from fmnist.config.overrides import program, shell_argument
from fmnist.runs import untrusted
from fmnist.runs.files import atomic_write, load_json, read_text, write_json
from fmnist.runs.moved_targets import update_targets

RECORD_LOCK = threading.RLock()
"""Held while run.json is changed: trackers write there, too, each from a thread of its own."""


class RunIsBusy(ValueError):  # noqa: N818 (shown to the user like other invalid input)
    """Another process writes to the run."""


class Run:
    """The files of one run, whose folder need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.yaml"
        self.record_file = folder / "run.json"
        self.metrics_file = folder / "metrics.json"
        self.history_file = folder / "metrics.csv"
        self.report_file = folder / "report.html"
        self.robustness_file = folder / "robustness.json"
        self.log_file = folder / "run.log"
        self.lock_file = folder / ".lock"
        self.best_checkpoint = folder / "checkpoints" / "best.ckpt"
        self.last_checkpoint = folder / "checkpoints" / "last.ckpt"
        self.previous_checkpoint = folder / "checkpoints" / "previous.ckpt"  # the last but one

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def chosen_checkpoint(self) -> Path:
        """The best checkpoint by the monitored metric, or the last one if nothing was monitored."""
        return self.best_checkpoint if self.best_checkpoint.is_file() else self.last_checkpoint

    @property
    def status(self) -> str | None:
        """running, finished, interrupted, pruned or failed; None if there is no record."""
        return self.load_record().get("status")

    @property
    def epochs(self) -> int:
        """The number of complete epochs in metrics.csv."""
        if not self.history_file.is_file():
            return 0
        try:
            lines = read_text(self.history_file).splitlines()
            return int(lines[-1].split(",")[0]) if len(lines) > 1 else 0
        except ValueError as error:
            raise ValueError(f"{self.history_file} is damaged: {one_line(error)}") from error

    @property
    def was_interrupted(self) -> bool:
        """Whether a training has left a checkpoint here and is not finished."""
        has_checkpoint = self.last_checkpoint.is_file() or self.previous_checkpoint.is_file()
        return self.config_file.is_file() and has_checkpoint and self.status != "finished"

    def save_config(self, config: dict[str, Any]) -> None:
        atomic_write(self.config_file, OmegaConf.to_yaml(config))

    def load_config(self) -> DictConfig:
        """Return the run's config.

        Raises:
            ValueError: if the file is damaged.
            OSError: if there is none, or the system can't read it.
        """
        try:
            content = OmegaConf.to_container(OmegaConf.create(untrusted.read_yaml(self.config_file)))
        except (ValueError, YAMLError) as error:
            raise ValueError(f"{self.config_file} can't be read: {one_line(error)}") from error
        cfg = OmegaConf.create(update_targets(content))
        assert isinstance(cfg, DictConfig)  # read_yaml takes nothing else
        return cfg

    def load_record(self) -> dict[str, Any]:
        return load_json(self.record_file)

    @property
    def varied(self) -> list[str]:
        """The overrides in which a sweep's jobs or a study's trials differ; of another run all that was ever typed.

        There are none where the record is damaged.
        """
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            record = self.load_record()
            typed = [text for part in (record, *record.get("resumed", [])) for text in part.get("overrides", [])]
            return record.get("varied", typed)  # type: ignore[no-any-return]
        return []

    def update_record(self, **entries: Any) -> None:
        """Add entries to run.json, or replace them. A damaged file is renamed, and a new one begun.

        Raises:
            OSError: if the system can't read or write it; it stays as it was.
        """
        with RECORD_LOCK:
            try:
                known = self.load_record()
            except ValueError:
                self.record_file.replace(self.record_file.with_suffix(".json.damaged"))
                known = {}
            write_json(self.record_file, known | entries)

    def update_trackers(self, **ids: str | None) -> None:
        """Add the names that trackers have given the run to run.json."""
        with RECORD_LOCK:
            self.update_record(trackers=self.trackers | ids)

    @property
    def trackers(self) -> dict[str, Any]:
        """The trackers' own names of the run, by tracker; none where the record is damaged."""
        with contextlib.suppress(ValueError):
            known = self.load_record().get("trackers")
            return known if isinstance(known, dict) else {}
        return {}

    def load_metrics(self) -> dict[str, Any]:
        return load_json(self.metrics_file)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.metrics_file, metrics)

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return self.command("train", "resume")

    def command(self, name: str, key: str) -> str:
        """Return a command with the run as the value of a key."""
        return f"{program(name)} {shell_argument(key, self.folder)}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process write here meanwhile.

        Raises:
            RunIsBusy: if another process writes here.
            ValueError: if the folder can't be written to.
        """
        lock = FileLock(self.lock_file, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunIsBusy(f"{self.folder}: another process is writing this run") from error
        except OSError as error:
            raise ValueError(f"{self.folder} can't be written to: {error.strerror}") from error
        try:
            yield
        finally:
            # Before it is released: a process that has opened the file meanwhile sees that it is gone, and tries again.
            with contextlib.suppress(OSError):  # of a folder that has become read-only
                self.lock_file.unlink(missing_ok=True)
            lock.release()

    def remove_temp_files(self) -> None:
        """Remove the temporary files of killed processes."""
        for file in [*self.folder.glob(".*.*.*"), *self.folder.glob("checkpoints/.*.*.*")]:
            if file.suffix[1:].isdigit():  # a process id
                file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder, and the two above it (the run's name, the folder of all runs) if they are left empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()
            self.folder.parent.parent.rmdir()


def new_run(outputs: Path, name: str) -> Run:
    """Make a folder that no other run has: outputs/name/date_time, with a number if that is taken.

    Raises:
        ValueError: if the name can't be a folder's, or the folder can't be made.
    """
    check_name(name)
    parent = (outputs / name).absolute()
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            candidate = parent / (stamp if number == 1 else f"{stamp}_{number}")
            with contextlib.suppress(FileExistsError):
                candidate.mkdir()
                return Run(candidate)
    except OSError as error:
        with contextlib.suppress(OSError):
            outputs.rmdir()  # if it is empty, as it is if the name is too long
        raise ValueError(f"outputs={outputs}: can't make a run folder there: {error.strerror}") from error
    raise ValueError(f"{parent} has too many runs of this second")


def check_name(name: str) -> None:
    """Raise a ValueError unless a folder can have the name."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"name={name!r}: must be the name of a folder: no '/', not empty, not starting with '.'")


def open_run(key: str, path: str | Path) -> Run:
    """Return the run that a path means: the run folder, a file or folder in it, or a folder that holds no other run.

    Raises:
        ValueError: if there is no run; the message names the key that the user gave the path with.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise ValueError(f"{key}={path}: there is no such folder")
    for folder in (place, *place.parents[:2]):
        if Run(folder).config_file.is_file():
            return Run(folder)
    records = (file for depth in ("*", "*/*", "*/*/*") for file in place.glob(f"{depth}/run.json"))
    runs = list(itertools.islice((Run(file.parent) for file in records if Run(file.parent).config_file.is_file()), 2))
    if not runs:
        raise ValueError(f"{key}={path} is not a run folder: it has no {Run(place).config_file.name}")
    if len(runs) > 1:
        raise ValueError(f"{key}={path} holds several runs: name one of them, as {runs[0].folder}")
    return runs[0]


def claim_run(folder: Path) -> Run:
    """Return the run of a sweep's job in the folder made for it, emptied of an earlier attempt.

    Raises:
        ValueError: if the folder holds anything else, which then stays.
    """
    run = Run(folder)
    if not any(folder.iterdir()):
        return run
    if not (run.record_file.is_file() or run.lock_file.is_file()):
        raise ValueError(f"{folder} is not empty: it may hold another run")
    with run.locked():
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != run.lock_file:
                path.unlink()
    return run
