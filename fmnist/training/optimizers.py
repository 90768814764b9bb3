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
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Muon's
EPSILON = 1e-8  # Adam's
SMALLEST_NORM = 1e-7
SMALL = 2**20
"""The most numbers of a matrix that is filled up to the shape of others, on a GPU."""


class Muon(Optimizer):
    """Convolution filters move by orthogonalised momentum, everything else by AdamW.

    A layer's filters (K, C, h, w) are a matrix (K, C * h * w); of its momentum each singular value is made about 1, so
    that rare directions of the gradient count as much as frequent ones.
    Source: Jordan et al., Muon, https://kellerjordan.github.io/posts/muon/

    Args:
        params: of a network. Those of four axes are filters.
        lr: of the filters: how far each step moves them, as about the spectral norm of their matrix; a matrix with more
            rows than columns moves farther, by the root of their ratio.
        momentum: Nesterov's, of the filters.
        weight_decay: of the filters, apart from the gradient.
        steps: of Newton and Schulz's iteration, which orthogonalises.
        adam_lr: of everything else.
        adam_betas: likewise.
        adam_weight_decay: likewise.
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
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in params:
            parts[parameter.dim() == FILTER_AXES].append(parameter)
        filters = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": steps}
        others = {"lr": adam_lr, "weight_decay": adam_weight_decay, "betas": tuple(adam_betas)}
        super().__init__([{"params": parts[True], **filters}, {"params": parts[False], **others}], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure else None
        filters, others = self.param_groups
        self._move([parameter for parameter in filters["params"] if parameter.grad is not None], filters)
        self._adapt([parameter for parameter in others["params"] if parameter.grad is not None], others)
        return loss

    def _move(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(gradient)
        averages, momentum = [self.state[parameter]["momentum"] for parameter in parameters], group["momentum"]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, averages, momentum)
        for parameter, direction in zip(parameters, orthogonal_filters(ahead, group["steps"]), strict=True):
            tall = max(1.0, len(direction) / direction[0].numel()) ** 0.5
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-group["lr"] * tall)

    def _adapt(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        if parameters:
            adamw(
                [*parameters],
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],  # of AMSGrad
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
    """What `orthogonalise` makes of each layer's filters (K, C, h, w) as a matrix, in their shape."""
    if filters[0].device.type == "cpu":
        return [orthogonalise(weights.flatten(1), steps).view_as(weights) for weights in filters]
    # The columns in the order of memory, which is channels last: then nothing is copied.
    matrices = [weights.permute(0, 2, 3, 1).flatten(1) for weights in filters]
    return [
        matrix.unflatten(1, (*weights.shape[2:], weights.shape[1])).permute(0, 3, 1, 2)
        for matrix, weights in zip(orthogonalise_together(matrices, steps), filters, strict=True)
    ]


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, whichever are fewer, roughly: (R, C) -> (R, C).

    By Newton and Schulz's iteration, with the coefficients of Muon, which leave the singular values between about
    0.7 and 1.2. It computes in bfloat16 where the matrix's device does, which is enough.
    """
    x = matrix.to(_precision(matrix.device))
    wide = matrix.shape[0] <= matrix.shape[1]
    x = x if wide else x.T
    x = _iterate(x / x.norm().clamp(min=SMALLEST_NORM), steps)
    return (x if wide else x.T).to(matrix.dtype)


def orthogonalise_together(matrices: Sequence[Tensor], steps: int = 5) -> list[Tensor]:
    """The same of several matrices with few kernels, as on a GPU to start one takes longer than a small one computes.

    Small matrices are filled up with zeros to one shape, which changes nothing: zeros stay zeros.
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
        torch._foreach_copy_(
            [_corner(x[place], wide[i]) for place, i in enumerate(members)], [wide[i] for i in members]
        )
        x = _iterate(x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM), steps).to(first.dtype)
        for place, i in enumerate(members):
            results[i] = _corner(x[place], wide[i])
    return [
        result if result.shape == matrix.shape else result.T for result, matrix in zip(results, matrices, strict=True)
    ]


def _corner(whole: Tensor, part: Tensor) -> Tensor:
    return whole[: part.shape[0], : part.shape[1]]


def _iterate(x: Tensor, steps: int) -> Tensor:
    """Newton and Schulz's, on a matrix (R, C) or several (N, R, C) of norm 1, with no more rows than columns."""
    a, b, c = COEFFICIENTS
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it."""
    return torch.bfloat16 if device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() else torch.float32
