"""Classify image files."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TextIO

import torch
from annotated_types import Ge, Gt, Lt, MinLen
from omegaconf import DictConfig
from rich.progress import Progress

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory
from fmnist.config.overrides import program
from fmnist.config.settings import read_settings
from fmnist.data.image_files import find_images
from fmnist.evaluation.calibration import NOT_CALIBRATED
from fmnist.plotting.style import save_png
from fmnist.plotting.terminal import printable, progress_console, shows_progress
from fmnist.plotting.tiles import tiles
from fmnist.predict.classify import FileClassifier, Predictor
from fmnist.predict.formats import FORMATS
from fmnist.runs.files import atomic_path
from fmnist.runs.latest import checkpoint_file

log = logging.getLogger(__name__)

NAME_LENGTH = 20  # characters of a file's name in the preview


@dataclass(frozen=True)
class Settings:
    """The keys of conf/predict.yaml, and what they may be."""

    run: str | None
    checkpoint: str | None
    images: str | Annotated[list[str], MinLen(1)] | None
    top: Annotated[int, Ge(1)]
    coverage: Annotated[float, Gt(0), Lt(1)] | None
    min_confidence: Annotated[float, Gt(0), Lt(1)] | None
    format: Literal["table", "json", "csv"]
    output: str | None
    preview: str | None
    batch_size: Annotated[int, Ge(1)]
    accelerator: str


@explain_out_of_memory("try half of batch_size, or accelerator=cpu")
def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (every command gets it)
    """Write the most likely classes of each image; exit with status 1 if a file could not be read or shows no item.

    Raises:
        ValueError: if the checkpoint is missing or damaged, there are no images, or the output can't be written.
    """
    logs.to_terminal()
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # harmless damage
    options = read_settings(Settings, cfg)
    if options.images is None:
        raise ValueError(f"give image files, a folder or a pattern: {program('predict')} run=latest photo.png")
    names = [options.images] if isinstance(options.images, str) else options.images
    files = [file for name in names for file in find_images(name)]
    check_output(options, files)
    predictor = Predictor(checkpoint_file(options.run, options.checkpoint), options.accelerator)
    classes = predictor.dataset.classes
    if options.top > len(classes):
        raise ValueError(f"top={options.top}: must be at most {len(classes)}, the number of classes")
    predictor.check_coverage(options.coverage)
    if predictor.calibrator is None:
        log.warning("the probabilities are %s", NOT_CALIBRATED)
    classifier = FileClassifier(predictor, options.top, options.batch_size, options.coverage, options.min_confidence)
    with open_output(options.output) as stream, progress(files, to_file=options.output is not None) as shown:
        FORMATS[options.format](stream, classifier.predictions(shown), options.top, classifier.marks, classes)
    if options.preview is not None and classifier.first:
        draw_preview(classifier, Path(options.preview))
    if classifier.failed:
        sys.exit(1)


def check_output(options: Settings, files: Sequence[str]) -> None:
    """Refuse output files that can't be written, or would replace one of the images or each other.

    Raises:
        ValueError: naming the key.
    """
    for key, name in (("output", options.output), ("preview", options.preview)):
        if name is None:
            continue
        target = Path(name)
        if not target.parent.is_dir():
            raise ValueError(f"{key}={name}: there is no folder {target.parent}")
        if target.exists() and not target.is_file():
            raise ValueError(f"{key}={name}: must be a file")
        if key == "preview" and target.suffix.lower() != ".png":
            raise ValueError(f"preview={name}: the name must end in .png")
        if target.exists() and any(target.samefile(file) for file in files):
            raise ValueError(f"{key}={name} is one of the images")
        try:
            with tempfile.NamedTemporaryFile(dir=target.parent):
                pass
        except OSError as error:
            raise ValueError(f"{key}={name}: can't be written: {error.strerror}") from error
    if options.output and options.preview and Path(options.output).resolve() == Path(options.preview).resolve():
        raise ValueError(f"preview={options.preview}: must be another file than output")


@contextlib.contextmanager
def progress(files: Sequence[str], *, to_file: bool) -> Iterator[Iterator[str]]:
    """Yield the files one by one, with a progress bar if the terminal shows nothing else."""
    shown = shows_progress(sys.stderr) and (to_file or not sys.stdout.isatty())
    # Redirected, the result would end up on the standard error.
    with Progress(console=progress_console(), redirect_stdout=False, transient=True, disable=not shown) as bar:
        yield iter(bar.track(files, description="images"))


@contextlib.contextmanager
def open_output(name: str | None) -> Iterator[TextIO]:
    """Open the file, which appears when it is complete, or the standard output."""
    if name is not None:
        with atomic_path(Path(name)) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield file
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # as of `| head`; at its end Python would try to write again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def draw_preview(classifier: FileClassifier, target: Path) -> None:
    """Write a PNG of the network's input for the first images, with their names and predictions."""
    titles = []
    for prediction in classifier.first:
        name = printable(Path(prediction.file).name).replace("$", r"\$")  # matplotlib would read a formula
        if len(name) > NAME_LENGTH:
            name = f"{name[: NAME_LENGTH // 2]}…{name[-NAME_LENGTH // 2 + 1 :]}"
        first, probability = next(iter(prediction.probabilities.items()))
        marks = {"inverted": prediction.inverted, **prediction.marks}
        shown = ", ".join(mark for mark, value in marks.items() if value is True)
        titles.append(f"{name}\n{first} {probability:.1%}" + (f"\n({shown})" if shown else ""))
    title = "Network input"
    if len(titles) < classifier.classified:
        title += f" (the first {len(titles)} of {classifier.classified:,} images)"
    images = torch.stack([prediction.pixels for prediction in classifier.first])
    with warnings.catch_warnings(), atomic_path(target) as temporary:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name in another script
        save_png(tiles(images, titles, suptitle=title), temporary)
