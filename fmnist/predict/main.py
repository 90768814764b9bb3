"""Name what a person's own image files show."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TextIO

import torch
from annotated_types import Ge, Le
from lightning.fabric import Fabric
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from fmnist.config import logs
from fmnist.config.memory import explain_out_of_memory
from fmnist.config.restore import restore
from fmnist.config.validation import check_arguments
from fmnist.data.info import CLASSES, IMAGE_SHAPE
from fmnist.plotting.style import save_png
from fmnist.plotting.tiles import tiles
from fmnist.predict.formats import FORMATS, Prediction, printable
from fmnist.predict.images import Background, Prepared, find_images, read_image
from fmnist.runs.files import atomic_path
from fmnist.runs.run import checkpoint_file

log = logging.getLogger(__name__)

MOST_SEEN = 64  # images in the picture of what the network saw
NAME_SHOWN = 20  # characters of a file's name in it

Probabilities = Callable[[Tensor], Tensor]
"""Pixels (N, C, H, W), uint8, to the probabilities (N, K) of the classes, float32."""


def settings(
    run: str | None,
    checkpoint: str | None,
    images: str | None,
    background: Background,
    top: Annotated[int, Ge(1), Le(len(CLASSES))],
    format: Literal["table", "json", "csv"],
    output: str | None,
    saw: str | None,
    batch_size: Annotated[int, Ge(1)],
    accelerator: str,
) -> None:
    """The keys of conf/predict.yaml, and what they may be."""


@explain_out_of_memory("try half of batch_size, or accelerator=cpu")
def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
    """Writes the likeliest classes of each image; ends with the status 1 if a file could not be read.

    Raises:
        ValueError: if there is no such run or checkpoint, it can't be read, or there are no such images.
    """
    logs.to_terminal()
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # on harmless damage, which no one can mend
    check_arguments("", settings, {str(key): value for key, value in cfg.items()})
    if cfg.images is None:
        raise ValueError("images: there has to be a file, a folder or a pattern, as images='photos/*.png'")
    files = find_images(cfg.images)
    for key in ("output", "saw"):
        check_target(key, cfg[key], files)
    if cfg.output is not None and cfg.saw is not None and Path(cfg.output).absolute() == Path(cfg.saw).absolute():
        raise ValueError(f"saw={cfg.saw} is the file of output, too")
    reading = Reading(
        network_of(checkpoint_file(cfg.run, cfg.checkpoint), cfg.accelerator), cfg.background, cfg.top, cfg.batch_size
    )
    with destination(cfg.output) as stream, progress(files, to_file=cfg.output is not None) as names:
        for line in FORMATS[cfg.format](reading.predictions(names), cfg.top):
            print(line, file=stream)
    if cfg.saw is not None and reading.seen:
        draw_seen(reading, Path(cfg.saw))
    if reading.inverted and cfg.background == "auto":
        log.warning(
            "%d of %d images have light corners and were inverted, as the network knows light items on black; "
            "where that is wrong, background=dark leaves them as they are",
            reading.inverted,
            reading.named,
        )
    if reading.failed:
        sys.exit(1)


def network_of(checkpoint_path: Path, accelerator: str) -> Probabilities:
    """The network of a checkpoint, on a device, in the precision that it was trained and measured in."""
    saved, classifier, dataset = restore(checkpoint_path, accelerator)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(accelerator=accelerator, devices=1, precision=saved.trainer.precision)
    except (ValueError, RuntimeError, ImportError) as error:
        raise ValueError(f"accelerator={accelerator}: {' '.join(str(error).split())}") from error
    network = fabric.setup_module(classifier.network).eval()

    @torch.inference_mode()
    def probabilities(pixels: Tensor) -> Tensor:
        logits: Tensor = network(dataset.normalise(fabric.to_device(pixels)))
        if not logits.isfinite().all():
            raise ValueError(f"{checkpoint_path}: its network answers with NaN or infinity, as after a failed training")
        return logits.float().softmax(dim=1)

    probabilities(torch.zeros(1, *IMAGE_SHAPE, dtype=torch.uint8))  # or half a result would be written by then
    return probabilities


class Reading:
    """One pass over the files, a batch at a time, and what it leaves to be said at its end.

    Args:
        network: tells the probabilities.
        background: of the pictures.
        top: classes to name for each.
        batch_size: images that pass through the network together.
    """

    def __init__(self, network: Probabilities, background: Background, top: int, batch_size: int) -> None:
        self.network = network
        self.background: Background = background
        self.top = top
        self.batch_size = batch_size
        self.named = 0
        self.failed = 0
        self.inverted = 0
        self.seen: list[tuple[Prediction, Tensor]] = []
        """The first images (H, W) as the network saw them."""

    def predictions(self, files: Iterator[str]) -> Iterator[Prediction]:
        """Of those files that can be read, in their order."""
        batch: list[tuple[str, Prepared]] = []
        for file in files:
            try:
                batch.append((file, read_image(file, self.background)))
            except ValueError as error:
                self.failed += 1
                log.warning("%s: %s", printable(file), error)
            if len(batch) == self.batch_size:
                yield from self._classify(batch)
                batch = []
        if batch:
            yield from self._classify(batch)

    def _classify(self, batch: list[tuple[str, Prepared]]) -> Iterator[Prediction]:
        values, classes = self.network(torch.stack([prepared.pixels for _, prepared in batch])).topk(self.top)
        for (file, prepared), row, indices in zip(batch, values.tolist(), classes.tolist(), strict=True):
            named = {CLASSES[index]: value for index, value in zip(indices, row, strict=True)}
            prediction = Prediction(file, prepared.inverted, named)
            self.named += 1
            self.inverted += prepared.inverted
            if len(self.seen) < MOST_SEEN:
                self.seen.append((prediction, prepared.pixels[0]))
            yield prediction


def draw_seen(reading: Reading, target: Path) -> None:
    """The first images as the network saw them, under their names and what they were taken for."""
    titles = []
    for prediction, _ in reading.seen:
        name = printable(Path(prediction.file).name).replace("$", r"\$")  # or matplotlib would read a formula
        if len(name) > NAME_SHOWN:
            name = f"{name[: NAME_SHOWN // 2]}…{name[-NAME_SHOWN // 2 + 1 :]}"
        first, probability = next(iter(prediction.probabilities.items()))
        titles.append(f"{name}\n{first} {probability:.1%}" + ("\n(inverted)" if prediction.inverted else ""))
    title = "What the network saw"
    if len(titles) < reading.named:
        title += f" (the first {len(titles)} of {reading.named:,})"
    with warnings.catch_warnings(), atomic_path(target) as beside:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name in another script
        save_png(tiles(torch.stack([pixels for _, pixels in reading.seen]), titles, suptitle=title), beside)


def check_target(key: str, name: str | None, files: list[str]) -> None:
    """Refuses a file that can't be written or is one of the images.

    Raises:
        ValueError: naming the key.
    """
    if name is None:
        return
    target = Path(name)
    if not target.parent.is_dir():
        raise ValueError(f"{key}={name}: there is no folder {target.parent}")
    if target.exists() and not target.is_file():
        raise ValueError(f"{key}={name}: it is no file")
    if key == "saw" and target.suffix.lower() != ".png":
        raise ValueError(f"saw={name}: its name should end in .png")
    if target.exists() and any(target.samefile(file) for file in files):
        raise ValueError(f"{key}={name} is one of the images")
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise ValueError(f"{key}={name}: no file can be written there: {error.strerror}") from error


@contextlib.contextmanager
def progress(files: list[str], *, to_file: bool) -> Iterator[Iterator[str]]:
    """The files one by one, under a bar where neither it nor the result would disturb the other."""
    shown = sys.stderr.isatty() and (to_file or not sys.stdout.isatty())
    # The result must not take rich's way to the terminal.
    with Progress(console=Console(stderr=True), redirect_stdout=False, transient=True, disable=not shown) as bar:
        yield iter(bar.track(files, description="images"))


@contextlib.contextmanager
def destination(output: str | None) -> Iterator[TextIO]:
    """The file, which appears when it is whole, or the standard output."""
    if output is not None:
        with atomic_path(Path(output)) as beside, beside.open("w", encoding="utf-8") as file:
            yield file
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; Python would try once more at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
