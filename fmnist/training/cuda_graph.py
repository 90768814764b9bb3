"""A network's work on a GPU, recorded once and started as a whole."""

import torch
from torch import Tensor, nn


class ReplayedNetwork:
    """Answers in training as the network does, from CUDA graphs of both directions that the first batch has recorded.

    A small network's kernels take less time than Python needs to start them one by one. BatchLoader of another size than
    the first, as an epoch's last one, are answered without.
    Source: `torch.cuda.make_graphed_callables`, https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

    A step's gradients lie where the next step's will: nothing may be added to them.
    """

    def __init__(self) -> None:
        self._recorded: nn.Module | None = None
        self._shape: torch.Size | None = None

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, K)."""
        if self._recorded is None:
            self._recorded, self._shape = record(network, images), images.shape
        logits: Tensor = (self._recorded if images.shape == self._shape else network)(images)
        return logits


def record(network: nn.Module, images: Tensor) -> nn.Module:
    """The network, to be called with images of this shape alone; its state and the random numbers stay as they are."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    autocast = torch.autocast(
        "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
    )
    # It computes on a stream of its own, for which backward passes wait.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    with torch.random.fork_rng([images.device]), autocast:
        # What it gets is changed: the network itself stays as it is.
        recorded = torch.cuda.make_graphed_callables(nn.Sequential(network), (images.clone(),))
    assert isinstance(recorded, nn.Module)
    for buffer, before in buffers:  # some batches have been tried
        buffer.copy_(before)
    return recorded
