"""Optimizers that torch doesn't have."""

from collections.abc import Callable, Iterable
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
        for parameter in filters["params"]:
            if parameter.grad is not None:
                self._move(parameter, parameter.grad, filters)
        self._adapt([parameter for parameter in others["params"] if parameter.grad is not None], others)
        return loss

    def _move(self, filters: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[filters], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        direction = orthogonalise(gradient.lerp(average, momentum).flatten(1), group["steps"])
        tall = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
        filters.mul_(1 - group["lr"] * group["weight_decay"])
        filters.add_(direction.view_as(filters), alpha=-group["lr"] * tall)

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


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, whichever are fewer, roughly: (R, C) -> (R, C).

    By Newton and Schulz's iteration, with the coefficients of Muon, which leave the singular values between about
    0.7 and 1.2. It computes in bfloat16 where the matrix's device does, which is enough.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if _computes_in_bfloat16(matrix.device) else torch.float32)
    wide = matrix.shape[0] <= matrix.shape[1]
    x = x if wide else x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.T).to(matrix.dtype)


def _computes_in_bfloat16(device: torch.device) -> bool:
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
