"""How many jobs a sweep would have, before they are listed."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep

MOST_JOBS = 100_000


def check_size(overrides: Sequence[Override], options: Callable[[str], Sequence[str]]) -> None:
    """Refuses a sweep of nothing, and one of more jobs than could be planned.

    Args:
        overrides: of which some have several values.
        options: names those of a group; none for what is no group.

    Raises:
        ValueError: saying how many jobs there would be.
    """
    jobs = math.prod(_count(override, options) for override in overrides)
    if not 1 <= jobs <= MOST_JOBS:
        raise ValueError(f"a sweep of {jobs:,} jobs: there should be 1 to {MOST_JOBS:,}")


def _count(override: Override, options: Callable[[str], Sequence[str]]) -> int:
    values: Any = override.value()
    if isinstance(values, ChoiceSweep):
        return len(values.list)
    if isinstance(values, Glob):
        return len(values.filter(list(options(override.get_key_element()))))
    if isinstance(values, RangeSweep) and values.step and None not in (values.start, values.stop):
        return max(0, math.ceil((values.stop - values.start) / values.step))  # type: ignore[operator]
    return 1
