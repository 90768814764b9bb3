"""How long the network and its exported files take for the same images."""

import statistics
import time
from collections.abc import Callable, Mapping

SECONDS, FEWEST, MOST = 3.0, 3, 200
"""Time for all rounds, and their number."""


def interleaved(runs: Mapping[str, Callable[[], object]], seconds: float = SECONDS) -> dict[str, float]:
    """Return the median seconds of each call, by name, after one that doesn't count.

    They take turns, so that a machine that becomes slower meanwhile does so for all of them.
    """
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    for number in range(MOST):
        if number >= FEWEST and time.perf_counter() > end:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
