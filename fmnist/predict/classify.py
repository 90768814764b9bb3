"""From image files to predictions, a batch at a time."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from fmnist.config.logs import quiet_lightning
from fmnist.config.restore import restore
from fmnist.evaluation.calibration import NOT_CALIBRATED
from fmnist.plotting.terminal import printable
from fmnist.predict.formats import Prediction
from fmnist.predict.images import read_image
from fmnist.predict.preparation import Prepared

log = logging.getLogger(__name__)

PREVIEWED = 64  # images


class Predictor:
    """The network of a checkpoint, in the precision in which it was trained and evaluated.

    Raises:
        ValueError: if the checkpoint can't be restored, its network returns NaN, or there is no such device.
    """

    def __init__(self, file: Path, accelerator: str) -> None:
        config, self.classifier, self.dataset, self.calibrator = restore(file, accelerator)
        try:
            with quiet_lightning():
                self.fabric = Fabric(accelerator=accelerator, devices=1, precision=config.trainer.precision)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"accelerator={accelerator}: {' '.join(str(error).split())}") from error
        self.file = file
        self.network = self.fabric.setup_module(self.classifier.network).eval()
        self(torch.zeros(1, *self.dataset.image_shape, dtype=torch.uint8))  # refuses NaN before any output is written

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return probabilities (N, K), float32, of images (N, C, H, W), uint8; calibrated where that is possible."""
        logits: Tensor = self.network(self.dataset.normalise(self.fabric.to_device(pixels)))
        if not logits.isfinite().all():
            raise ValueError(f"{self.file}: the network returns NaN or infinity, as after a failed training")
        return self.calibrator.probabilities(logits.float()) if self.calibrator else logits.float().softmax(dim=1)

    def marks(
        self, probabilities: Tensor, coverage: float | None = None, min_confidence: float | None = None
    ) -> list[dict[str, list[str] | bool]]:
        """Return the marks of each image for probabilities (N, K); see `Prediction`.

        Args:
            coverage: of the prediction sets, from 0 to 1; None for none.
            min_confidence: smallest probability of a prediction that isn't unsure; None if there is none.

        Raises:
            ValueError: if there is no calibration for prediction sets.
        """
        found: list[dict[str, list[str] | bool]] = [{} for _ in probabilities]
        if coverage is not None:
            if self.calibrator is None:
                raise ValueError(f"coverage={coverage}: {self.file} is {NOT_CALIBRATED}")
            order = probabilities.argsort(dim=1, descending=True)
            sets = self.calibrator.prediction_sets(probabilities, coverage).gather(1, order)
            for mark, ranked, held in zip(found, order.tolist(), sets.tolist(), strict=True):
                mark["set"] = [
                    self.dataset.classes[label] for label, inside in zip(ranked, held, strict=True) if inside
                ]
        if min_confidence is not None:
            for mark, confidence in zip(found, probabilities.amax(dim=1).tolist(), strict=True):
                mark["unsure"] = confidence < min_confidence
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
        wanted = {"set": self.coverage, "unsure": self.min_confidence}
        return [name for name, value in wanted.items() if value is not None]

    def predictions(self, files: Iterable[str]) -> Iterator[Prediction]:
        """Yield the predictions of the files that can be read, in their order. Log the errors of the others."""
        images = self._read(files)
        classes = self.predictor.dataset.classes
        while batch := list(islice(images, self.batch_size)):
            outputs = self.predictor(torch.stack([image.pixels for _, image in batch])).cpu()
            values, labels = outputs.topk(self.top)
            marks = self.predictor.marks(outputs, self.coverage, self.min_confidence)
            for (file, image), mark, *best in zip(batch, marks, values.tolist(), labels.tolist(), strict=True):
                probabilities = {classes[label]: value for value, label in zip(*best, strict=True)}
                prediction = Prediction(file, image.pixels, image.inverted, probabilities, mark)
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
