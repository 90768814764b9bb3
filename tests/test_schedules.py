"""Learning rate schedules, by value."""

import math
from collections.abc import Callable
from functools import partial

import pytest

from fmnist.training.schedules import constant, cosine, one_cycle, step

Schedule = Callable[[int, int], float]
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant, [1.0] * 6),
        (cosine, [1.0, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0.0]),
        (partial(cosine, final=0.2), [1.0, 0.6, 0.2]),
        (partial(cosine, warmup=0.5), [1 / 3, 2 / 3, 1.0, 0.5, 0.0]),
        (one_cycle, [0.04, 0.36, 0.68, 1.0, *(1 - k / 7 for k in range(1, 8))]),
        (
            partial(one_cycle, peak=0.4, start=0.2, final=0.1),
            [0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1],
        ),
        (partial(one_cycle, peak=0.0), [1.0, 0.75, 0.5, 0.25, 0.0]),
        (step, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        (partial(step, milestones=[0.25, 0.5, 0.5], factor=0.5), [1, 0.5, 0.125, 0.125, 0.125]),
        (partial(step, milestones=[], factor=0.5), [1.0] * 5),
    ],
)
def test_factor_at_each_step_by_value(schedule: Schedule, expected: list[float]) -> None:
    """The last factor is that after the last step, for which a scheduler asks, too."""
    total = len(expected) - 1
    assert [schedule(number, total) for number in range(total + 1)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "schedule",
    [
        cosine,
        partial(cosine, warmup=0.25),
        partial(cosine, warmup=0.99, final=0.1),
        one_cycle,
        partial(one_cycle, peak=0.99, start=0.0, final=0.5),
        step,
        partial(step, milestones=[0.0, 1.0], factor=0.5),
    ],
)
@pytest.mark.parametrize("total", [1, 2, 3, 97])
def test_factor_is_between_0_and_1_and_not_always_0(schedule: Schedule, total: int) -> None:
    factors = [schedule(number, total) for number in range(total + 3)]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    assert max(factors[: total + 1]) > 0.0
