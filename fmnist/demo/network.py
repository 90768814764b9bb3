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

CHECKED = 32  # random images, on which the graph is compared with the network


class OnnxNetwork:
    """Classifies images with onnxruntime, and explains predictions with PyTorch.

    Args:
        file: the checkpoint, for messages.
        restored: its contents.

    Raises:
        ValueError: if the network can't be exported, or its graph gives something else than the network.
    """

    def __init__(self, file: Path, restored: Restored) -> None:
        self.dataset = restored.dataset
        self.calibrator = restored.calibrator
        temperature = 1.0 if restored.calibrator is None else restored.calibrator.temperature
        model = PixelsToProbabilities(restored.classifier.network, restored.dataset, temperature)
        try:
            self._run = onnx_graph(model)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        self._network = restored.classifier.network.float().eval()
        self._lock = threading.Lock()  # Grad-CAM hooks into the layers

    def probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities (N, K), calibrated where that is possible, of images (N, C, H, W), uint8."""
        return self._run(images)

    def explain(self, pixels: Tensor, label: int) -> tuple[str, Tensor]:
        """Return the method and the picture (3, H, W), uint8, of what in an image (C, H, W) speaks for a class."""
        with self._lock, torch.enable_grad():
            method, heat = attribution(self._network, self.dataset.normalise(pixels[None]), torch.tensor([label]))
        return method, overlay(pixels, heat[0])


def onnx_graph(model: PixelsToProbabilities) -> Run:
    """Return what runs a model's ONNX graph, once it gives what the model gives.

    Raises:
        ValueError: if the model can't be exported, or its graph gives something else.
    """
    images = random_images(model.dataset.image_shape, CHECKED)
    batches = [images, images[:1]]
    reference = Reference(model, batches, [model.run(batch) for batch in batches], parts=1)
    if not all(output.isfinite().all() for output in reference.outputs):
        raise ValueError("the network returns NaN or infinity, as after a failed training")
    with tempfile.TemporaryDirectory() as folder:  # onnxruntime has read the file when it returns
        file = Path(folder) / NAMES["onnx"]
        files.write("onnx", file, model, model.trace("onnx"), {})
        run = files.session(file)
    reference.compare(run, NAMES["onnx"])
    return run
