"""The network of a checkpoint as an ONNX graph, for many threads."""

import tempfile
import threading
from pathlib import Path

import torch
from torch import Tensor

from fmnist.config.restore import Restored
from fmnist.evaluation.inspection import attribution
from fmnist.export import files
from fmnist.export.check import Reference, random_images
from fmnist.export.files import NAMES, Run
from fmnist.export.graph import PixelsToProbabilities
from fmnist.plotting.tiles import overlay
from fmnist.predict.classify import Outputs, Predictor

CHECKED = 32  # random images, on which the graph is compared with the network


class OnnxPredictor(Predictor):
    """Classifies images with onnxruntime, and explains predictions with PyTorch.

    Args:
        file: the checkpoint, for messages.
        restored: its contents.

    Raises:
        ValueError: if the network can't be exported, or its graph gives something else than the network.
    """

    def __init__(self, file: Path, restored: Restored) -> None:  # not that of Predictor, which has another runtime
        self.file = file
        _, self.classifier, self.dataset, self.calibrator, self.detector = restored
        temperature = 1.0 if self.calibrator is None else self.calibrator.temperature
        model = PixelsToProbabilities(self.classifier.network, self.dataset, temperature)
        try:
            self._run = onnx_graph(model)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        self._explained = self.classifier.network.float().eval()
        self._lock = threading.Lock()  # Grad-CAM hooks into the layers

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Outputs:
        """Return the outputs for images (N, C, H, W), uint8."""
        probabilities, features = self._run(pixels)
        return Outputs(probabilities, self.detector.distances(features) if self.detector else None)

    def explain(self, pixels: Tensor, name: str) -> tuple[str, Tensor]:
        """Return the method and the picture (3, H, W), uint8, of what in an image (C, H, W) speaks for a class."""
        label = torch.tensor([self.dataset.classes.index(name)])
        with self._lock:
            method, heat = attribution(self._explained, self.dataset.normalise(pixels[None]), label)
        return method, overlay(pixels, heat[0])


def onnx_graph(model: PixelsToProbabilities) -> Run:
    """Return what runs a model's ONNX graph, once it gives what the model gives.

    Raises:
        ValueError: if the model can't be exported, or its graph gives something else.
    """
    images = random_images(model.dataset.image_shape, CHECKED)
    batches = [images, images[:1]]
    reference = Reference(model, batches, [model.run(batch) for batch in batches], parts=1)
    if not reference.probabilities.isfinite().all():
        raise ValueError("the network returns NaN or infinity, as after a failed training")
    with tempfile.TemporaryDirectory() as folder:  # onnxruntime has read the file when it returns
        file = Path(folder) / NAMES["onnx"]
        files.write("onnx", file, model, model.trace("onnx"), {})
        run = files.session(file)
    reference.compare(run, NAMES["onnx"])
    return run
