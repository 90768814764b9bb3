"""Learning-rate schedules: pure functions (step, total_steps) -> factor of the optimizer's learning rate.

`step` counts optimizer steps from 0; `total_steps` is their number in the whole training.
"""

import math
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Fraction = Annotated[float, Ge(0), Le(1)]


def constant(step: int, total_steps: int) -> float:  # noqa: ARG001 (every schedule takes both)
    """Return 1."""
    return 1.0


def cosine(
    step: int, total_steps: int, *, warmup: Annotated[float, Ge(0), Lt(1)] = 0.0, final: Fraction = 0.0
) -> float:
    """Return half a cosine from 1 down to `final`, after a linear warm-up over the fraction `warmup` of the steps.

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983 (without restarts).
    """
    warm = warmup * total_steps
    if step < warm:
        return (step + 1) / (warm + 1)
    progress = (step - warm) / max(1.0, total_steps - warm)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def one_cycle(
    step: int,
    total_steps: int,
    *,
    peak: Annotated[float, Ge(0), Lt(1)] = 0.3,
    start: Fraction = 0.04,
    final: Fraction = 0.0,
) -> float:
    """Return a line from `start` up to 1 at the fraction `peak` of the steps, then a line down to `final`.

    Source: Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120
    """
    top = peak * total_steps
    if step < top:
        return start + (1 - start) * step / top
    progress = (step - top) / max(1.0, total_steps - top)
    return 1 + (final - 1) * min(1.0, progress)


def step(
    step: int,
    total_steps: int,
    *,
    milestones: Sequence[Fraction] = (0.5, 0.75),
    factor: Annotated[float, Gt(0), Le(1)] = 0.1,
) -> float:
    """Return 1, multiplied by `factor` at each of the `milestones`, which are fractions of the steps."""
    return factor ** sum(step >= milestone * total_steps for milestone in milestones)
