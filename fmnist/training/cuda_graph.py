"""Record a network's kernels on a GPU once, and replay them as one CUDA graph."""

import torch
from torch import Tensor, nn


class ReplayedNetwork:
    """Compute a network's logits in training by replaying CUDA graphs of its forward and backward pass.

    The first batch records the graphs. The kernels of a small network take less time than Python needs to launch them
    one by one. A batch of another size, as the last one of an epoch, is computed without graphs.
    Source: `torch.cuda.make_graphed_callables`, https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

    All steps write their gradients to the same memory, so gradients can't be accumulated over steps.
    """

    def __init__(self) -> None:
        self._recorded: nn.Module | None = None
        self._shape: torch.Size | None = None

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        if self._recorded is None:
            self._recorded, self._shape = record(network, images), images.shape
        logits: Tensor = (self._recorded if images.shape == self._shape else network)(images)
        return logits


def record(network: nn.Module, images: Tensor) -> nn.Module:
    """Return the network as a module that replays graphs, for images of this shape only.

    The network's state and the random numbers don't change.
    """
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    autocast = torch.autocast(
        "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
    )
    # Graphs run on a stream of their own; backward passes wait for it.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    with torch.random.fork_rng([images.device]), autocast:
        # make_graphed_callables changes the module that it gets, which is therefore a wrapper.
        recorded = torch.cuda.make_graphed_callables(nn.Sequential(network), (images.clone(),))
    assert isinstance(recorded, nn.Module)
    for buffer, before in buffers:  # the warm-up has changed the statistics of batch norm
        buffer.copy_(before)
    return recorded
