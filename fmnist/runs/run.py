"""A run folder on disk: its config, its checkpoints, its metrics, its record."""

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from fmnist.runs import untrusted as trust
from fmnist.runs.files import atomic_write, load_json, write_json
from fmnist.runs.moved_targets import update_targets

PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)
"""A value that needs no quotes on the command line."""


class RunIsBusy(ValueError):  # noqa: N818 (a mistake like others, until somebody asks which)
    """Another process is writing the run."""


@dataclass(frozen=True)
class Run:
    """Where everything of one run lies."""

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def record_file(self) -> Path:
        return self.folder / "run.json"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def history_file(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    @property
    def log_file(self) -> Path:
        return self.folder / "run.log"

    @property
    def lock_file(self) -> Path:
        return self.folder / ".lock"

    @property
    def best_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """What was the last checkpoint before it."""
        return self.folder / "checkpoints" / "previous.ckpt"

    @property
    def chosen_checkpoint(self) -> Path:
        """The result: the best by the monitored metric, or the last where nothing was monitored."""
        return self.best_checkpoint if self.best_checkpoint.is_file() else self.last_checkpoint

    def save_config(self, config: dict[str, Any]) -> None:
        atomic_write(self.config_file, OmegaConf.to_yaml(config))

    def load_config(self) -> DictConfig:
        try:
            cfg = OmegaConf.create(trust.read_yaml(self.config_file))
            cfg = OmegaConf.create(update_targets(OmegaConf.to_container(cfg)))
        except (OSError, ValueError, YAMLError) as error:
            raise ValueError(f"{self.config_file} can't be read: {' '.join(str(error).split())}") from error
        if not isinstance(cfg, DictConfig):
            raise ValueError(f"{self.config_file} is not the config of a run")
        return cfg

    def load_record(self) -> dict[str, Any]:
        return load_json(self.record_file)

    def update_record(self, **entries: Any) -> None:
        """Adds to run.json, or replaces what stands there under the same names; a damaged one is set aside."""
        try:
            known = self.load_record()
        except ValueError:
            self.record_file.replace(self.record_file.with_suffix(".json.damaged"))
            known = {}
        write_json(self.record_file, known | entries)

    @property
    def status(self) -> str | None:
        """running, finished, interrupted, pruned or failed; None where nothing is known."""
        return self.load_record().get("status")

    @property
    def epochs(self) -> int:
        """Complete epochs, by the table of the epochs."""
        lines = self.history_file.read_text().splitlines() if self.history_file.is_file() else []
        return int(lines[-1].split(",")[0]) if len(lines) > 1 else 0

    @property
    def was_cut_off(self) -> bool:
        """Whether a training began here and can go on."""
        begun = self.last_checkpoint.is_file() or self.previous_checkpoint.is_file()
        return self.config_file.is_file() and begun and self.status != "finished"

    def load_metrics(self) -> dict[str, Any]:
        return load_json(self.metrics_file)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.metrics_file, metrics)

    @property
    def resume_command(self) -> str:
        """The command that resumes the run, quoted for the shell and for Hydra."""
        folder = str(self.folder)
        if not PLAIN.fullmatch(folder):
            folder = '"' + folder.replace('"', r"\"") + '"'
        return f"python scripts/train.py {shlex.quote(f'resume={folder}')}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lets one process write here.

        Raises:
            RunIsBusy: if another one does.
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
            # While it is held: whoever has opened the file meanwhile sees that it is gone, and tries again.
            with contextlib.suppress(OSError):  # of a folder that has become read-only
                self.lock_file.unlink(missing_ok=True)
            lock.release()

    def remove_temp_files(self) -> None:
        """Removes what a killed process was writing beside the files that it had not replaced yet."""
        for file in [*self.folder.glob(".*.*.*"), *self.folder.glob("checkpoints/.*.*.*")]:
            if file.suffix[1:].isdigit():  # a process
                file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the folder, and the two above it (its name's and that of all runs) where they are left empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()
            self.folder.parent.parent.rmdir()


def new_run(outputs: Path, name: str) -> Run:
    """Makes a folder that no other run has: outputs/name/date_time, with a number where that is taken.

    Args:
        outputs: the folder of all runs.
        name: what the run is called.

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
            outputs.rmdir()  # if it is empty, as where the name is too long
        raise ValueError(f"outputs={outputs}: can't make a run folder there: {error.strerror}") from error
    raise ValueError(f"{parent} has too many runs of this second")


def check_name(name: str) -> None:
    """Refuse a name that can't be a folder's.

    Raises:
        ValueError: naming it.
    """
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"name={name!r} can't be the name of a folder: no '/', not empty, not starting with '.'")


def open_run(key: str, folder: str | Path) -> Run:
    """The run in a folder.

    Args:
        key: what the person named it by, for the message.
        folder: its folder.

    Raises:
        ValueError: if it isn't the folder of a run.
    """
    run = Run(Path(folder).absolute())
    if not run.folder.is_dir():
        raise ValueError(f"{key}={folder}: there is no such folder")
    if not run.config_file.is_file():
        raise ValueError(f"{key}={folder} is not a run folder: it has no {run.config_file.name}")
    return run


def checkpoint_file(run: str | None, checkpoint: str | None) -> Path:
    """The checkpoint that a person names by one of the two keys: that of a run is its chosen one.

    Raises:
        ValueError: if it isn't one of the two, or there is no such run.
    """
    if run is not None and checkpoint is None:
        return open_run("run", run).chosen_checkpoint
    if checkpoint is not None and run is None:
        return Path(checkpoint)
    raise ValueError("give either run=<run folder> or checkpoint=<file>")


def claim_run(folder: Path) -> Run:
    """The run of a sweep's job, in the folder that the sweep has made for it; what is left of an earlier try goes.

    Raises:
        ValueError: if anything else lies there, which then stays.
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
