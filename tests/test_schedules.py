import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from fmnist.training.schedules import constant, cosine, one_cycle, step

Schedule = Callable[[int, int], float]

ALL = {
    "constant": constant,
    "cosine": cosine,
    "cosine-warmup": partial(cosine, warmup=0.25),
    "cosine-final": partial(cosine, warmup=0.05, final=0.1),
    "cosine-long-warmup": partial(cosine, warmup=0.99),
    "one_cycle": one_cycle,
    "one_cycle-peak-first": partial(one_cycle, peak=0.0),
    "one_cycle-peak-last": partial(one_cycle, peak=0.99, start=0.0, final=0.5),
    "step": step,
    "step-none": partial(step, milestones=[]),
    "step-ends": partial(step, milestones=[0.0, 1.0], factor=0.5),
}


def course(schedule: Schedule, total: int) -> list[float]:
    """The multiplier at each step, and after the last, where a scheduler asks once more."""
    return [schedule(number, total) for number in range(total + 1)]


def test_constant_is_one() -> None:
    assert course(constant, 5) == [1.0] * 6


def test_cosine_goes_from_one_by_a_half_to_nothing() -> None:
    half = math.sqrt(0.5)
    assert course(cosine, 4) == pytest.approx([1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0])


def test_cosine_ends_at_final() -> None:
    assert course(partial(cosine, final=0.2), 2) == pytest.approx([1.0, 0.6, 0.2])


def test_cosine_warms_up_linearly_and_never_from_zero() -> None:
    warm = course(partial(cosine, warmup=0.4), 10)
    assert warm[:5] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0])
    assert warm[7] == pytest.approx(0.5)
    assert warm[10] == pytest.approx(0.0)
    assert all(before > after for before, after in pairwise(warm[4:]))


def test_one_cycle_rises_to_its_peak_and_falls_to_final() -> None:
    cycle = course(partial(one_cycle, peak=0.4, start=0.2, final=0.1), 10)
    assert cycle == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1])


def test_one_cycle_default_starts_at_a_25th_and_ends_at_nothing() -> None:
    cycle = course(one_cycle, 10)
    assert [cycle[0], cycle[3], cycle[10]] == pytest.approx([0.04, 1.0, 0.0])


def test_one_cycle_with_its_peak_first_only_falls() -> None:
    assert course(partial(one_cycle, peak=0.0), 4) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_step_multiplies_by_factor_at_each_milestone() -> None:
    assert course(step, 8) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert course(partial(step, milestones=[0.25, 0.5, 0.5], factor=0.5), 4) == pytest.approx(
        [1, 0.5, 0.125, 0.125, 0.125]
    )
    assert course(partial(step, milestones=[], factor=0.5), 4) == [1.0] * 5


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("total", [1, 2, 3, 10, 97])
def test_multiplier_stays_within_0_and_1(schedule: Schedule, total: int) -> None:
    assert all(0.0 <= multiplier <= 1.0 for multiplier in course(schedule, total + 3))
    assert max(course(schedule, total)) > 0.0


@pytest.mark.parametrize(
    ("schedule", "one", "two"),
    [
        (constant, [1.0], [1.0, 1.0]),
        (cosine, [1.0], [1.0, 0.5]),
        (partial(cosine, warmup=0.5), [1 / 1.5], [0.5, 1.0]),
        (one_cycle, [0.04], [0.04, 1 - 0.4 / 1.4]),
        (step, [1.0], [1.0, 0.1]),
    ],
)
def test_trainings_of_one_and_two_steps(schedule: Schedule, one: list[float], two: list[float]) -> None:
    assert course(schedule, 1)[:1] == pytest.approx(one)
    assert course(schedule, 2)[:2] == pytest.approx(two)
