"""Batch norm over the images of all processes, also on the CPU, which torch's SyncBatchNorm doesn't support."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(_BatchNorm):
    """Batch norm with the mean and variance of the images of all processes; a process may have no image.

    In evaluation, or with one process, it equals batch norm. Its state has the same names. Layers within it, as the
    activation in those of timm, act on the result.
    """

    def forward(self, features: Tensor) -> Tensor:
        result = self._normalise(features)
        for layer in self.children():
            result = layer(result)
        return result

    def _normalise(self, features: Tensor) -> Tensor:
        if not self.training or not torch.distributed.is_initialized():
            normalised: Tensor = super().forward(features)
            return normalised
        # At least in float32, as batch norm computes for features in half precision.
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        axes = [axis for axis in range(wide.dim()) if axis != 1]
        shape = [1, -1] + [1] * (wide.dim() - 2)
        count = wide.new_tensor(wide.numel() // wide.shape[1])
        sums = _AllReduceSum.apply(torch.cat([wide.sum(axes), count[None]]))
        total = sums[-1].detach()
        if total <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {features.shape}")
        mean = sums[:-1] / total
        centred = wide - mean.view(shape)
        # In a second pass: mean(x²) - mean(x)² would lose digits.
        variance = _AllReduceSum.apply(centred.square().sum(axes)) / total
        self._track(mean.detach(), variance.detach() * (total / (total - 1)))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(features.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of axes, as this layer replaces batch norms of all kinds."""


class _AllReduceSum(Function):
    """Sum over all processes. The gradient is the sum of their gradients."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        all_reduce(summed)
        return summed


def synced(network: nn.Module) -> nn.Module:
    """Return the network with its batch norms replaced by synchronised ones of the same parameters and statistics."""
    if isinstance(network, _BatchNorm) and not isinstance(network, SyncedBatchNorm):
        layer = SyncedBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        layer.weight, layer.bias = network.weight, network.bias
        layer.running_mean, layer.running_var = network.running_mean, network.running_var
        layer.num_batches_tracked = network.num_batches_tracked
        for name, child in network.named_children():
            layer.add_module(name, child)
        return layer.train(network.training)
    for name, child in network.named_children():
        setattr(network, name, synced(child))
    return network
