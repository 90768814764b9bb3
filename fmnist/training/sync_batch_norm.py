"""Batch norm over what several processes see, for processors that torch's own SyncBatchNorm doesn't know."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(_BatchNorm):
    """As batch norm, with the mean and variance of all processes' images; a process may have none.

    In evaluation and in a process of its own it is batch norm. Its state has the same names.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or not torch.distributed.is_initialized():
            alone: Tensor = super().forward(features)
            return alone
        # In single precision at least, as batch norm computes where features come in half of it.
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        axes = [axis for axis in range(wide.dim()) if axis != 1]
        shape = [1, -1] + [1] * (wide.dim() - 2)
        count = wide.new_tensor(wide.numel() // wide.shape[1])
        sums = _Sum.apply(torch.cat([wide.sum(axes), count[None]]))
        total = sums[-1].detach()
        if total <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {features.shape}")
        mean = sums[:-1] / total
        centred = wide - mean.view(shape)
        # In a second pass, as the difference of two large numbers would be of few digits.
        variance = _Sum.apply(centred.square().sum(axes)) / total
        self._track(mean.detach(), variance.detach() * (total / (total - 1)))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = normalised.to(features.dtype)
        return result

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards a batch's."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes: the layer that this one stands for has checked its own."""


class _Sum(Function):
    """The sum over all processes; its gradient is the sum of theirs."""

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
    """The network with each batch norm replaced by one of all processes, with the same parameters and statistics."""
    if isinstance(network, _BatchNorm) and not isinstance(network, SyncedBatchNorm):
        replaced = SyncedBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        replaced.weight, replaced.bias = network.weight, network.bias
        replaced.running_mean, replaced.running_var = network.running_mean, network.running_var
        replaced.num_batches_tracked = network.num_batches_tracked
        return replaced.train(network.training)
    for name, child in network.named_children():
        setattr(network, name, synced(child))
    return network
