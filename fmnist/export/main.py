"""Export a trained network to files that need nothing of this project."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import MinLen
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fmnist.config import logs
from fmnist.config.errors import explain_out_of_memory, keys_as_typed
from fmnist.config.instantiate import plain_config
from fmnist.config.overrides import program
from fmnist.config.restore import Restored, build_datamodule_of, restore
from fmnist.config.settings import read_settings
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.data.idx import DataUnavailableError
from fmnist.data.sources import check_root
from fmnist.evaluation.calibration import NOT_CALIBRATED
from fmnist.evaluation.inspection import count_parameters
from fmnist.evaluation.measure import measure
from fmnist.evaluation.robustness import Robustness, read_robustness
from fmnist.export.card import Card, model_card
from fmnist.export.check import Reference, random_images
from fmnist.export.describe import describe
from fmnist.export.exporter import Exporter
from fmnist.export.files import PACKAGES, Format, need
from fmnist.export.folder import check_output, new_folder
from fmnist.export.graph import Layout, PixelsToProbabilities
from fmnist.export.quantize import calibration_images
from fmnist.runs.files import atomic_write, if_readable
from fmnist.runs.latest import CHECKPOINT_SUFFIX, OUTPUTS, named_run
from fmnist.runs.run import Run

log = logging.getLogger(__name__)

CARD = "the model card"
EXPORTS = OUTPUTS / "export"
FLOAT32 = ("32", "32-true")


@dataclass(frozen=True)
class Settings:
    """The keys of conf/export.yaml, and what they may be."""

    run: str | None
    format: Format | Annotated[list[Format], MinLen(1)]
    output: str | None
    layout: Layout
    quantize: Literal["int8"] | None
    check: Literal["test", "random"] | None
    data_root: str | None


class Images(NamedTuple):
    """The images with which an export is checked and calibrated."""

    check: Tensor
    """uint8, (N, C, H, W)."""
    labels: Tensor | None
    """(N); None for random images."""
    training: Tensor | None
    """uint8, (M, C, H, W), for the ranges of 8 bits; None where they aren't needed."""
    trained_accuracy: float | None
    """In the precision of the training; None for random images, or where that is float32."""


@explain_out_of_memory("close other programs, or try another machine")
@keys_as_typed()
def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (every command gets it)
    """Write the files of a trained network and its model card into a new folder, once all of them are checked.

    Raises:
        ValueError: if there is no such run, the folder isn't empty, a package is missing, the network can't be
            exported, or a file gives something else than the network. Then no folder is left.
    """
    logs.to_terminal()
    options = read_settings(Settings, cfg)
    formats = list(dict.fromkeys([options.format] if isinstance(options.format, str) else options.format))
    check_options(options, formats)
    run, file = find_checkpoint(options.run or "")
    output = EXPORTS / run.folder.name if options.output is None else Path(options.output)
    check_output(output)
    check_packages(formats)
    restored = restore(file, "cpu", options.data_root)
    images = find_images(restored, file, options)
    calibrator, detector, dataset = restored.calibrator, restored.detector, restored.dataset
    temperature = 1.0 if calibrator is None else calibrator.temperature
    model = PixelsToProbabilities(restored.classifier.network, dataset, temperature, options.layout)
    notes = [
        f"temperature 1: the probabilities are {NOT_CALIBRATED}"
        if calibrator is None
        else f"the temperature {temperature:.4f} is part of the files",
        f"compared on {len(images.check):,} {'random' if images.labels is None else 'test'} images",
    ]
    reference = reference_of(model, images, file)
    if note := precision_note(str(restored.config.trainer.precision), images, reference):
        notes.append(note)
    for note in notes:
        log.info("%s", note)
    node = plain_config(restored.config.model)
    description = describe(model, node, run.folder.name, calibrated=calibrator is not None, detector=detector)
    exporter = Exporter(model, reference, images.labels, description, detector)
    with new_folder(output) as folder:
        training = None if options.quantize is None or images.training is None else calibration_images(images.training)
        written = exporter.write(folder, formats, training)
        known = recorded(run, file)
        confusion = confusion_of(reference, images.labels, len(dataset.classes))
        card = Card(description, dataset, count_parameters(model), *known, written, confusion, notes)
        atomic_write(folder / "README.md", model_card(card))
    log.info("exported: %s", output)


def check_options(options: Settings, formats: list[Format]) -> None:
    """Refuse options that don't go together.

    Raises:
        ValueError: naming the key.
    """
    if options.quantize is not None and "onnx" not in formats:
        raise ValueError(f"quantize={options.quantize}: needs format=onnx, whose file is quantised")
    if options.output == "":
        raise ValueError("output=: must be a folder")
    if options.run is None:
        raise ValueError(f"give a run: {program('export')} run=latest")


def check_packages(formats: Sequence[Format]) -> None:
    """Refuse formats whose packages are missing. It imports them, which takes seconds.

    Raises:
        ValueError: naming the package and the extra that has it.
    """
    for form in formats:
        need(f"format={form}", *PACKAGES[form])
    need(CARD, "huggingface_hub")


def find_checkpoint(path: str) -> tuple[Run, Path]:
    """Return the run that a path means, and its chosen checkpoint or the one that the path names."""
    run = named_run("run", path)
    named = Path(path)
    return run, named if named.suffix == CHECKPOINT_SUFFIX and named.is_file() else run.chosen_checkpoint


def find_images(restored: Restored, file: Path, options: Settings) -> Images:
    """Return the dataset's images where they are needed and here, and random ones otherwise.

    Raises:
        ValueError: if images are asked for that aren't here.
    """
    generated = Images(random_images(restored.dataset.image_shape), None, None, None)
    if options.check == "random" and options.quantize is None:
        return generated
    try:
        if options.data_root is None:
            check_root("data_root", OmegaConf.select(restored.config, "data.root"))
        datamodule = build_datamodule_of(restored, file)
        datamodule.setup()
    except DataUnavailableError as error:
        if options.check is not None or options.data_root is not None or options.quantize is not None:
            raise
        log.warning("check=random, as the test images aren't here: %s", error)
        return generated
    training = datamodule.splits["train"][0]
    if options.check == "random":
        return generated._replace(training=training)
    accuracy = None
    if str(restored.config.trainer.precision) not in FLOAT32:
        restored.config.trainer.limit_test_batches = 1.0
        trainer = build_evaluation_trainer(restored.config)
        accuracy = measure(trainer, restored.classifier, datamodule, "test").accuracy
    return Images(*datamodule.splits["test"], training, accuracy)


def reference_of(model: PixelsToProbabilities, images: Images, file: Path) -> Reference:
    """Return what the network gives for the images."""
    try:
        return Reference.of(model, images.check)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def precision_note(precision: str, images: Images, reference: Reference) -> str | None:
    """Return what the export in float32 changes; None where the network was trained in it."""
    if precision in FLOAT32:
        return None
    if images.labels is None or images.trained_accuracy is None:
        return f"exported in float32, trained in {precision}: what that changes was not measured"
    exported = (reference.probabilities.argmax(dim=1) == images.labels).double().mean().item()
    return (
        f"exported in float32: test accuracy {exported:.2%} ({images.trained_accuracy:.2%} in {precision}, as trained)"
    )


def confusion_of(reference: Reference, labels: Tensor | None, classes: int) -> Tensor | None:
    """Return counts (K true, K predicted) of the test images; None for random images."""
    if labels is None:
        return None
    predicted = reference.probabilities.argmax(dim=1)
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def recorded(run: Run, file: Path) -> tuple[dict[str, Any], dict[str, Any], Robustness | None]:
    """Return run.json, metrics.json and the robustness of a checkpoint; nothing of what is missing.

    Of what is damaged, or of another checkpoint, a warning tells that it is left out.
    """
    record, metrics = if_readable(run.load_record, CARD), if_readable(run.load_metrics, CARD)
    return record or {}, metrics or {}, if_readable(lambda: read_robustness(run, file), CARD)
