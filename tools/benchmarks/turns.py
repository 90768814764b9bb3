"""Several ways to do the same, measured in turns, and what is told of the values."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

log = logging.getLogger(__name__)

Measurement = Callable[[], Mapping[str, float]]
"""Values of one repetition by their names."""


def take_turns(
    name: str, measurements: Sequence[Measurement], repetitions: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """All values of all measurements, one for each turn, so that a machine whose speed drifts is fair to all.

    Args:
        name: of the whole, for the line that tells what is being measured.
        measurements: made one after the other in each turn, each with names of its own.
        repetitions: turns.
        warm_up: whether one turn more comes first, which isn't counted.
    """
    log.info("measuring %s", name)
    turns: list[dict[str, float]] = []
    for _ in range(repetitions + warm_up):
        turn: dict[str, float] = {}
        for measure in measurements:
            turn |= measure()
        turns.append(turn)
    counted = turns[warm_up:]
    return {key: [turn[key] for turn in counted] for key in counted[0]}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest, highest and all of the values."""
    return {"median": median(values), "lowest": min(values), "highest": max(values), "values": list(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The summary of the ratios turn by turn, which drift less than the ratio of two medians."""
    return summary([our / their for our, their in zip(ours, theirs, strict=True)])


def contest(
    name: str,
    ways: Mapping[str, Callable[[], float]],
    repetitions: int,
    against: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Several ways to do the same, in images per second.

    Args:
        name: what is done.
        ways: each of them measured once.
        repetitions: turns.
        against: for a way, what its ratios are called, and the ways by which it is divided.
    """

    def named(way: str, measure: Callable[[], float]) -> Measurement:
        return lambda: {way: measure()}

    values = take_turns(name, [named(*pair) for pair in ways.items()], repetitions)
    return {
        "unit": "images/s",
        "ways": {way: summary(rates) for way, rates in values.items()},
        "ratios": {
            way: {called: ratio(values[way], values[other]) for called, other in others.items()}
            for way, others in against.items()
        },
    }


def quantities(unit: str, values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """A summary with its unit for each name."""
    return {name: {"unit": unit, **summary(numbers)} for name, numbers in values.items()}


def exponents(sizes: Sequence[float], values: Sequence[float]) -> list[float]:
    """From each size to the next: the power of the size with which the value grows. 1 is linear, 0 constant."""
    steps = range(len(sizes) - 1)
    return [math.log(values[i + 1] / values[i]) / math.log(sizes[i + 1] / sizes[i]) for i in steps]
