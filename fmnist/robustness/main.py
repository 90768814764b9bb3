"""Measure how robust trained classifiers are: their accuracy and calibration on corrupted test images."""

import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le, MinLen
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory, keys_as_typed
from fmnist.config.keys import MAX_SEED
from fmnist.config.overrides import program
from fmnist.config.restore import build_datamodule_of, restore
from fmnist.config.settings import read_settings
from fmnist.config.similar import did_you_mean
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.sources import check_root
from fmnist.evaluation.main import find_checkpoints, fit_calibrator
from fmnist.evaluation.robustness import Condition, Robustness, Scores
from fmnist.plotting.terminal import progress_console, shows_progress
from fmnist.robustness.corruptions import CORRUPTIONS, STRENGTHS
from fmnist.robustness.files import PAGE_FILE, write_files, write_scores
from fmnist.robustness.measure import Network, Result, measure_conditions
from fmnist.robustness.tables import terminal_text
from fmnist.runs.files import sha256
from fmnist.runs.run import Run, new_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The keys of conf/robustness.yaml, and what they may be."""

    run: str | Annotated[list[str], MinLen(1)] | None
    checkpoint: str | None
    corruptions: Annotated[list[str], MinLen(1)] | str | None
    strengths: Annotated[list[Annotated[int, Ge(1), Le(5)]], MinLen(1)] | None
    images: Annotated[int, Ge(1)] | None
    seed: Annotated[int, Ge(0), Le(MAX_SEED)]
    output: str | None
    outputs: str
    data_root: str | None
    accelerator: str


@explain_out_of_memory("try fewer images (images=1000), or accelerator=cpu")
@keys_as_typed()
def main(cfg: DictConfig, hydra: DictConfig) -> float:  # noqa: ARG001 (every command gets it)
    """Log and write the scores of one or several checkpoints, and return the mean corruption accuracy of the first.

    Raises:
        ValueError: if a checkpoint is missing or damaged, several weren't trained for the same test images, there is no
            such corruption, or the output can't be written. Then nothing is written.
    """
    logs.to_terminal()
    options = read_settings(Settings, cfg)
    corruptions = chosen_corruptions(options.corruptions)
    strengths = chosen_strengths(options.strengths)
    files = find_checkpoints(options.run, options.checkpoint)
    folder = output_folder(options.output, files)
    check_writable(*("output", folder) if folder else ("outputs", Path(options.outputs)))
    networks, datamodule = load(files, options)
    conditions = [None, *((name, strength) for name in corruptions for strength in strengths)]
    result = find_robustness(networks, datamodule, conditions, options.seed)
    log.info("%s", terminal_text(result.networks))
    folder = folder or new_run(Path(options.outputs), "robustness").folder
    write_files(folder, result)
    log.info("page: %s", folder / PAGE_FILE)
    runs = [run_of(file) for file in files]
    for run, network in zip(runs, result.networks, strict=True):
        if run is not None and run.folder.resolve() != folder.resolve():
            write_scores(run, network)
    if any(runs):
        log.info("a report has the scores of its run:  %s run=<run>", program("report"))
    return result.first.mean().accuracy


def find_robustness(
    networks: Sequence[Network], datamodule: ImageDataModule, conditions: Sequence[Condition | None], seed: int
) -> Result:
    """Return the robustness of networks under conditions, of which the first is None, for the clean images."""
    pictures = {}
    scores: list[dict[Condition | None, Scores]] = [{} for _ in networks]
    with Progress(console=progress_console(), transient=True, disable=not shows_progress(sys.stderr)) as bar:
        measured = measure_conditions(networks, datamodule, conditions, seed)
        for condition, picture, found in bar.track(measured, len(conditions), description="conditions"):
            pictures[condition] = picture
            for own, score in zip(scores, found, strict=True):
                own[condition] = score
    complete = len(conditions) == 1 + len(CORRUPTIONS) * len(STRENGTHS)
    images = len(datamodule.splits["test"][0])
    return Result(
        [
            Robustness(
                *(network.name, network.checkpoint, network.calibrator is not None, images, seed, complete),
                clean=own[None],
                corrupted={condition: score for condition, score in own.items() if condition is not None},
            )
            for network, own in zip(networks, scores, strict=True)
        ],
        pictures,
    )


def chosen_corruptions(given: str | Sequence[str] | None) -> list[str]:
    """Return the names of the corruptions that are asked for; None are all.

    Raises:
        ValueError: if there is no such corruption, or one is given twice.
    """
    if given is None:
        return list(CORRUPTIONS)
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in CORRUPTIONS:
            raise ValueError(f"corruptions={name}: there is no such corruption{did_you_mean(name, CORRUPTIONS)}")
        if names.count(name) > 1:
            raise ValueError(f"corruptions={name}: given twice")
    return names


def chosen_strengths(given: Sequence[int] | None) -> list[int]:
    """Return the strengths that are asked for; None are all.

    Raises:
        ValueError: if one is given twice.
    """
    strengths = list(STRENGTHS if given is None else given)
    if len({*strengths}) < len(strengths):
        raise ValueError(f"strengths={strengths}: one is given twice")
    return strengths


def output_folder(output: str | None, files: Sequence[Path]) -> Path | None:
    """Return the folder for the result: the given one, or that of the only run; None if a new one is to be made.

    A checkpoint that isn't the chosen one of its run gets a new one.

    Raises:
        ValueError: if the given one has no name.
    """
    if output == "":
        raise ValueError("output=: must be a folder")
    if output is not None:
        return Path(output)
    run = run_of(files[0])
    return run.folder if run and len(files) == 1 else None


def run_of(file: Path) -> Run | None:
    """Return the run whose chosen checkpoint a file is; None if it is that of no run."""
    run = Run(file.absolute().parents[1])
    return run if run.config_file.is_file() and file.absolute() == run.chosen_checkpoint else None


def check_writable(key: str, folder: Path) -> None:
    """Refuse a folder that can't be written to, or made.

    Raises:
        ValueError: naming the key.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"{key}={folder}: must be a folder, but {existing} is a file")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"{key}={folder}: can't be written to: {error.strerror}") from error


def load(files: Sequence[Path], options: Settings) -> tuple[list[Network], ImageDataModule]:
    """Return the networks of checkpoints, and a data module that is set up with the test images of all of them.

    Raises:
        ValueError: if a checkpoint is missing or damaged, has no test images, or others than the first one.
    """
    networks: list[Network] = []
    first: ImageDataModule | None = None
    for file in files:
        restored = restore(file, options.accelerator, options.data_root)
        config = restored.config
        if options.data_root is None:
            check_root("data_root", OmegaConf.select(config, "data.root"))
        config.trainer.limit_test_batches = 1.0  # images=N chooses from all of them
        datamodule = build_datamodule_of(restored, file)
        datamodule.prepare_data()
        datamodule.setup("test")
        calibrator = restored.calibrator or fit_calibrator({file: restored}, {file: datamodule})
        if calibrator is None:
            log.warning("%s: not calibrated, as that takes validation images: its softmax is measured", file)
        choose_images(datamodule, options.images, options.seed)
        if first is None:
            first = datamodule
        elif not same_images(first, datamodule):
            raise ValueError(f"{file}: its run has other test images than {files[0]}")
        trainer = build_evaluation_trainer(config)
        name, digest = str(shown_name(file)), sha256(file)
        networks.append(Network(name, digest, trainer, restored.classifier, restored.dataset, calibrator))
    assert first is not None
    return networks, first


def shown_name(file: Path) -> Path:
    """Return the folder of a run for its chosen checkpoint, and otherwise the checkpoint, as seen from here."""
    run = run_of(file)
    named = run.folder if run else file
    here = Path.cwd()
    return named.relative_to(here) if named.is_relative_to(here) else named


def choose_images(datamodule: ImageDataModule, count: int | None, seed: int) -> None:
    """Leave so many of the test images, chosen by the seed; None leaves all.

    Raises:
        ValueError: if there are fewer.
    """
    images, labels = datamodule.splits["test"]
    if not len(images):
        raise ValueError("run: it has no test images")
    if count is None:
        return
    if count > len(images):
        raise ValueError(f"images={count}: must be at most {len(images)}, the number of test images")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    datamodule.splits["test"] = images[chosen], labels[chosen]


def same_images(one: ImageDataModule, other: ImageDataModule) -> bool:
    """Return whether two data modules have the same test images, labels and classes."""
    if one.dataset.classes != other.dataset.classes:
        return False
    pairs = zip(one.splits["test"], other.splits["test"], strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)
