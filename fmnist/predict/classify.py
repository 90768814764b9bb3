"""From image files to predictions, a batch at a time."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor

from fmnist.config.logs import quiet_lightning
from fmnist.config.restore import restore
from fmnist.evaluation.calibration import NOT_CALIBRATED
from fmnist.evaluation.unfamiliar import features_and_logits
from fmnist.plotting.terminal import printable
from fmnist.predict.formats import Marks, Prediction
from fmnist.predict.images import read_image
from fmnist.predict.preparation import Prepared

log = logging.getLogger(__name__)

PREVIEWED = 64  # images


class Outputs(NamedTuple):
    """What a network says about N images."""

    probabilities: Tensor
    """Of the K classes (N, K), float32; calibrated where that is possible."""
    distances: Tensor | None
    """From the training images (N), see `Detector`; None where the checkpoint has no detector."""


class Predictor:
    """The network of a checkpoint, in the precision in which it was trained and evaluated.

    Raises:
        ValueError: if the checkpoint can't be restored, its network returns NaN, or there is no such device.
    """

    def __init__(self, file: Path, accelerator: str) -> None:
        config, self.classifier, self.dataset, self.calibrator, self.detector = restore(file, accelerator)
        try:
            with quiet_lightning():
                self.fabric = Fabric(accelerator=accelerator, devices=1, precision=config.trainer.precision)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"accelerator={accelerator}: {' '.join(str(error).split())}") from error
        self.file = file
        self.network = self.fabric.setup_module(self.classifier.network).eval()
        self(torch.zeros(1, *self.dataset.image_shape, dtype=torch.uint8))  # refuses NaN before any output is written

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Outputs:
        """Return the outputs for images (N, C, H, W), uint8."""
        features, logits = features_and_logits(self.network, self.dataset.normalise(self.fabric.to_device(pixels)))
        if not logits.isfinite().all():
            raise ValueError(f"{self.file}: the network returns NaN or infinity, as after a failed training")
        probabilities = self.calibrator.probabilities(logits) if self.calibrator else logits.softmax(dim=1)
        distances = self.detector.distances(features).cpu() if self.detector else None
        return Outputs(probabilities.cpu(), distances)

    def predictions(
        self,
        images: Sequence[tuple[str, Prepared]],
        top: int | None = None,
        coverage: float | None = None,
        min_confidence: float | None = None,
    ) -> list[Prediction]:
        """Return the predictions for some images with their names, which pass through the network at once.

        Args:
            top: number of classes in a prediction; None for all.
            coverage: of the prediction sets, from 0 to 1; None for none. Needs a calibrator.
            min_confidence: smallest probability of a prediction that isn't unsure; None if there is none.
        """
        outputs = self(torch.stack([image.pixels for _, image in images]))
        marks = self.marks(outputs, coverage, min_confidence)
        classes = self.dataset.classes
        values, labels = outputs.probabilities.topk(len(classes) if top is None else top)
        found = []
        for (name, image), mark, *best in zip(images, marks, values.tolist(), labels.tolist(), strict=True):
            probabilities = {classes[label]: value for value, label in zip(*best, strict=True)}
            found.append(Prediction(name, image.pixels, image.inverted, probabilities, mark))
        return found

    def check_coverage(self, coverage: float | None) -> None:
        """Refuse prediction sets where there is no calibration.

        Raises:
            ValueError: naming the key.
        """
        if coverage is not None and self.calibrator is None:
            raise ValueError(f"coverage={coverage}: {self.file} is {NOT_CALIBRATED}")

    def marks(self, outputs: Outputs, coverage: float | None, min_confidence: float | None) -> list[Marks]:
        """Return the marks of each image; see `Prediction`."""
        self.check_coverage(coverage)
        found: list[Marks] = [{} for _ in outputs.probabilities]
        if coverage is not None and self.calibrator is not None:
            order = outputs.probabilities.argsort(dim=1, descending=True)
            sets = self.calibrator.prediction_sets(outputs.probabilities, coverage).gather(1, order)
            for mark, ranked, held in zip(found, order.tolist(), sets.tolist(), strict=True):
                mark["set"] = [
                    self.dataset.classes[label] for label, inside in zip(ranked, held, strict=True) if inside
                ]
        if min_confidence is not None:
            for mark, confidence in zip(found, outputs.probabilities.amax(dim=1).tolist(), strict=True):
                mark["unsure"] = confidence < min_confidence
        if self.detector is not None and outputs.distances is not None:
            for mark, distance in zip(found, outputs.distances.tolist(), strict=True):
                mark["unfamiliar"] = distance > self.detector.threshold
        return found


@dataclass
class FileClassifier:
    """Classifies image files in batches, and counts them.

    Args:
        top: number of classes in a prediction.
        batch_size: images that are in memory and pass through the network at once.
        coverage: of the prediction sets; None for none. The predictor is calibrated.
        min_confidence: smallest probability of a prediction that isn't unsure; None if there is none.
    """

    predictor: Predictor
    top: int
    batch_size: int
    coverage: float | None = None
    min_confidence: float | None = None
    classified: int = 0
    failed: int = 0
    first: list[Prediction] = field(default_factory=list)

    @property
    def marks(self) -> list[str]:
        """The names of the predictions' marks."""
        wanted = {"set": self.coverage, "unsure": self.min_confidence, "unfamiliar": self.predictor.detector}
        return [name for name, value in wanted.items() if value is not None]

    def predictions(self, files: Iterable[str]) -> Iterator[Prediction]:
        """Yield the predictions of the files that can be read, in their order. Log the errors of the others."""
        images = self._read(files)
        while batch := list(islice(images, self.batch_size)):
            for prediction in self.predictor.predictions(batch, self.top, self.coverage, self.min_confidence):
                self.classified += 1
                if len(self.first) < PREVIEWED:
                    self.first.append(prediction)
                yield prediction

    def _read(self, files: Iterable[str]) -> Iterator[tuple[str, Prepared]]:
        for file in files:
            try:
                image = read_image(file, self.predictor.dataset)
            except ValueError as error:
                self.failed += 1
                log.warning("%s: %s", printable(file), error)
            else:
                yield file, image
