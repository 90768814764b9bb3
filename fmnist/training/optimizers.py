"""Optimizers that torch doesn't have."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt, MaxLen, MinLen
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

Rate = Annotated[float, Ge(0)]
Momentum = Annotated[float, Ge(0), Lt(1)]
FILTER_AXES = 4
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Muon's Newton-Schulz iteration
EPSILON = 1e-8  # of AdamW
SMALLEST_NORM = 1e-7
SMALL = 2**20  # elements, at most, of a matrix that is padded to the shape of others, on a GPU


class Muon(Optimizer):
    """Update convolution filters by orthogonalised momentum (Muon) and all other parameters by AdamW.

    The filters of a layer (K, C, H, W) are a matrix (K, C * H * W). All singular values of its momentum become about 1,
    so that rare directions of the gradient count as much as frequent ones. `torch.optim.Muon` takes matrices only.
    Source: Jordan et al., Muon, https://kellerjordan.github.io/posts/muon/

    Args:
        params: parameters of a network; those with four axes are filters.
        lr: learning rate of the filters: about the spectral norm of each update. It is multiplied by the root of rows /
            columns for a matrix with more rows than columns.
        momentum: Nesterov momentum of the filters.
        weight_decay: decoupled weight decay of the filters.
        steps: steps of the Newton-Schulz iteration.
        adam_lr, adam_betas, adam_weight_decay: of AdamW, which updates all other parameters.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: Rate = 0.1,
        momentum: Momentum = 0.95,
        weight_decay: Rate = 0.0,
        steps: Annotated[int, Ge(1), Lt(100)] = 5,
        adam_lr: Rate = 0.01,
        adam_betas: Annotated[tuple[Momentum, Momentum], MinLen(2), MaxLen(2)] = (0.9, 0.99),
        adam_weight_decay: Rate = 0.0,
    ) -> None:
        parameters = list(params)
        filters = [parameter for parameter in parameters if parameter.dim() == FILTER_AXES]
        others = [parameter for parameter in parameters if parameter.dim() != FILTER_AXES]
        muon = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": steps}
        adam = {"lr": adam_lr, "weight_decay": adam_weight_decay, "betas": tuple(adam_betas)}
        groups = [{"name": "filters", "params": filters, **muon}, {"name": "others", "params": others, **adam}]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure else None
        for group, update in zip(self.param_groups, (self._update_filters, self._update_others), strict=True):
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                update(parameters, [parameter.grad for parameter in parameters], group)
        return loss

    def _update_filters(self, parameters: list[nn.Parameter], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(gradient)
        averages, momentum = [self.state[parameter]["momentum"] for parameter in parameters], group["momentum"]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        nesterov = torch._foreach_lerp(gradients, averages, momentum)
        for parameter, direction in zip(parameters, orthogonal_filters(nesterov, group["steps"]), strict=True):
            scale = max(1.0, len(direction) / direction[0].numel()) ** 0.5
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-group["lr"] * scale)

    def _update_others(self, parameters: list[nn.Parameter], gradients: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        adamw(
            [*parameters],
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],  # maxima, of AMSGrad
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=EPSILON,
            maximize=False,
        )


def orthogonal_filters(filters: Sequence[Tensor], steps: int) -> list[Tensor]:
    """Return the filters of each layer (K, C, H, W), orthogonalised as a matrix (K, C * H * W)."""
    if filters[0].device.type == "cpu":
        return [orthogonalise(weights.flatten(1), steps).view_as(weights) for weights in filters]
    # The columns are in the order of memory, channels last, so that nothing is copied.
    matrices = [weights.permute(0, 2, 3, 1).flatten(1) for weights in filters]
    return [
        matrix.unflatten(1, (*weights.shape[2:], weights.shape[1])).permute(0, 3, 1, 2)
        for matrix, weights in zip(orthogonalise_together(matrices, steps), filters, strict=True)
    ]


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return about the nearest matrix with orthonormal rows or columns, whichever are fewer: (R, C) -> (R, C).

    Muon's coefficients of the Newton-Schulz iteration leave the singular values between about 0.7 and 1.2. It computes
    in bfloat16 if the device does, which is precise enough.
    """
    x = matrix.to(_precision(matrix.device))
    wide = matrix.shape[0] <= matrix.shape[1]
    x = x if wide else x.T
    x = _newton_schulz(x / x.norm().clamp(min=SMALLEST_NORM), steps)
    return (x if wide else x.T).to(matrix.dtype)


def orthogonalise_together(matrices: Sequence[Tensor], steps: int = 5) -> list[Tensor]:
    """Return `orthogonalise` of each matrix, computed with few kernels.

    On a GPU the launch of a kernel takes longer than its work on a small matrix. Small matrices are padded with zeros
    to one shape; the zeros don't change the results.
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, matrix in enumerate(wide):
        groups.setdefault(() if matrix.numel() <= SMALL else matrix.shape, []).append(i)
    results = list(wide)
    for members in groups.values():
        first = wide[members[0]]
        rows, columns = (max(wide[i].shape[axis] for i in members) for axis in (0, 1))
        x = first.new_zeros(len(members), rows, columns, dtype=_precision(first.device))
        corners = [padded[: wide[i].shape[0], : wide[i].shape[1]] for padded, i in zip(x, members, strict=True)]
        torch._foreach_copy_(corners, [wide[i] for i in members])
        x = _newton_schulz(x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM), steps).to(first.dtype)
        for padded, i in zip(x, members, strict=True):
            results[i] = padded[: wide[i].shape[0], : wide[i].shape[1]]
    return [
        result if result.shape == matrix.shape else result.T for result, matrix in zip(results, matrices, strict=True)
    ]


def _newton_schulz(x: Tensor, steps: int) -> Tensor:
    """Return the result of the iteration for a matrix (R, C) or several (N, R, C) of norm 1, with R <= C."""
    a, b, c = COEFFICIENTS
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device computes in it, else float32."""
    return torch.bfloat16 if device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() else torch.float32
