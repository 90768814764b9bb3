"""A trained network for use from Python."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fmnist.data.image_files import to_eight_bits
from fmnist.predict.classify import Predictor
from fmnist.predict.formats import Prediction
from fmnist.predict.images import fit, read_image
from fmnist.predict.inputs import split_batch, to_picture
from fmnist.predict.preparation import Prepared
from fmnist.runs.latest import checkpoint_file, named_run
from fmnist.runs.run import Run
from fmnist.training.classifier import Classifier


class Model:
    """The network of a checkpoint, which classifies images of any kind and size.

    Args:
        checkpoint: the file.
        accelerator: "auto", "cpu", "gpu", ...

    Raises:
        ValueError: if there is no such checkpoint, or it can't be restored.
    """

    def __init__(self, checkpoint: Path, accelerator: str = "auto") -> None:
        with torch.random.fork_rng([]):  # a network draws random weights before it is restored
            self._predictor = Predictor(checkpoint, accelerator)
        self.checkpoint = checkpoint
        self.dataset = self._predictor.dataset
        """The facts of the dataset that the network was trained on."""
        self.classes = self.dataset.classes
        """The names of the K classes, in the order of the network's outputs."""

    @property
    def classifier(self) -> Classifier:
        """The LightningModule, whose weights are those of the checkpoint."""
        return self._predictor.classifier

    def predict(
        self,
        images: Any,
        batch_size: int = 256,
        coverage: float | None = None,
        min_confidence: float | None = None,
    ) -> Any:
        """Return the prediction for an image, or the list of those for several.

        Args:
            images: a path, a Pillow image, an array or a tensor, or several: see `split_batch`. They are prepared as
                `predict.py` prepares files; images that are as in the dataset keep their pixels.
            batch_size: images that pass through the network at once.
            coverage: also return, as `marks["set"]`, the classes that hold the true one with this probability.
            min_confidence: also return, as `marks["unsure"]`, whether the largest probability is smaller.

        `marks["unfamiliar"]` is true for an image that is unlike the training images.

        Raises:
            ValueError: if an image can't be read, or shows no item, or `coverage` needs a calibration that is missing.
        """
        for name, value in (("coverage", coverage), ("min_confidence", min_confidence)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name}={value}: must be between 0 and 1")
        singles, several = split_batch(images)
        prepared = self._prepared(singles)
        predictions: list[Prediction] = []
        while batch := list(islice(prepared, batch_size)):
            predictions += self._predictor.predictions(batch, None, coverage, min_confidence)
        return predictions if several else predictions[0]

    def _prepared(self, images: list[Any]) -> Iterator[tuple[str, Prepared]]:
        """Yield a name and the network's input for each image."""
        for number, image in enumerate(images):
            name = str(image) if isinstance(image, str | Path) else f"image {number}"
            try:
                yield name, self._prepare(image)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def _prepare(self, image: Any) -> Prepared:
        if isinstance(image, str | Path):
            return read_image(image, self.dataset)
        picture = to_picture(image) if isinstance(image, np.ndarray) else image
        assert isinstance(picture, Image.Image)
        return fit(to_eight_bits(picture, max(self.dataset.image_shape)), self.dataset)


def load(run: str | Path | Run, accelerator: str = "auto") -> Model:
    """Return the trained network of a run's best checkpoint, or of a checkpoint file.

    Args:
        run: a run, its folder or any path in it, or a checkpoint file (.ckpt).
        accelerator: "auto", "cpu", "gpu", ...

    Raises:
        ValueError: if there is no such run or checkpoint, or it can't be restored.
    """
    if isinstance(run, Run):
        run = run.folder
    if Path(run).suffix == ".ckpt":
        return Model(checkpoint_file(None, str(run)), accelerator)
    return Model(named_run("run", str(run)).chosen_checkpoint, accelerator)
