"""What is exported: one module from bytes to probabilities, and to the features behind them."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from fmnist.config.errors import is_out_of_memory, one_line
from fmnist.data.info import DatasetInfo
from fmnist.evaluation.inspection import network_name
from fmnist.evaluation.unfamiliar import flat, last_linear_inputs

Layout = Literal["nchw", "nhwc"]
INPUT, OUTPUTS = "images", ("probabilities", "features")
"""Names in the graph."""
Outputs = tuple[Tensor, Tensor]
"""Probabilities (N, K) and features of length 1 (N, F), float32."""
EXAMPLES = 2  # a batch of one would be taken for a fixed size


class PixelsToProbabilities(nn.Module):
    """Normalise images, apply a network, and turn its logits into calibrated probabilities.

    Args:
        network: maps normalised images (N, C, H, W) to logits (N, K). It is copied, in float32.
        dataset: whose mean and standard deviation the images are normalised with.
        temperature: the logits are divided by it.
        layout: "nchw" or "nhwc", the order of the input's axes.
    """

    def __init__(self, network: nn.Module, dataset: DatasetInfo, temperature: float, layout: Layout = "nchw") -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float()
        self.dataset = dataset
        self.temperature = temperature
        self.layout = layout
        self.eval().requires_grad_(False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W) or (H, W, C)."""
        channels, height, width = self.dataset.image_shape
        return (channels, height, width) if self.layout == "nchw" else (height, width, channels)

    def forward(self, images: Tensor) -> Outputs:
        """Return probabilities and features of images (N, C, H, W) or (N, H, W, C), uint8.

        The features are the last linear layer's input, as `Detector` takes them.
        """
        if self.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        with last_linear_inputs(self.network) as inputs:
            logits: Tensor = self.network(self.dataset.normalise(images))
            features = inputs[0] if inputs else logits
        return (logits / self.temperature).softmax(dim=1), functional.normalize(flat(features))

    @torch.inference_mode()
    def run(self, images: Tensor) -> Outputs:
        """Return what `forward` does, without a graph for gradients."""
        outputs: Outputs = self(images)
        return outputs

    def in_layout(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) in the order of the input's axes."""
        return images if self.layout == "nchw" else images.permute(0, 2, 3, 1).contiguous()

    def trace(self, form: str = "torch_export") -> ExportedProgram:
        """Return the module as a graph of torch's operations, for batches of any size.

        Args:
            form: the format that needs it, for messages.

        Raises:
            ValueError: if a part of the network can't be traced.
        """
        example = torch.zeros(EXAMPLES, *self.input_shape, dtype=torch.uint8)
        try:
            with torch.no_grad(), quiet():
                program = torch.export.export(self, (example,), dynamic_shapes=({0: Dim("batch")},))
        except Exception as error:  # of any operation of any network
            raise refusal(form, self.network, error) from error
        for module in program.graph_module.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                node.meta.pop("stack_trace", None)  # lines of source code with the paths of this machine
        return program


def refusal(form: str, network: nn.Module, error: Exception) -> Exception:
    """Return the error for a network that can't be exported in a format."""
    if is_out_of_memory(error):
        return error
    reason = one_line(error)[:300] or type(error).__name__
    return ValueError(f"format={form}: {network_name(network)} can't be exported: {reason}")


def plain_state(network: nn.Module) -> dict[str, Any]:
    """Return the weights by name, each in memory of its own, with its axes in their order."""
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters log, warn of and print from the terminal: failures are told by their errors."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
