"""The overrides of a sweep: which keys have several values, and how many jobs that makes."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep

from fmnist.config.overrides import key_of

MAX_JOBS = 100_000


@dataclass(frozen=True)
class SweepOverrides:
    """The overrides of a sweep, parsed."""

    swept: frozenset[str]
    """The keys with several values."""
    fixed: dict[str, str]
    """The other overrides `key=value`, by key."""
    jobs: int
    """The number of combinations."""


def parse_sweep(given: Sequence[str], loader: ConfigLoader) -> SweepOverrides:
    """Parse the overrides of a sweep, with the help of a loader that knows the options of each group.

    Raises:
        ValueError: if there is no job, there are too many, or the sweep would resume a run.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(given))
    overrides = {override.get_key_element(): override for override in parsed}  # as in Hydra, the last one counts
    swept = frozenset(key_of(key) for key, override in overrides.items() if override.is_sweep_override())
    fixed = {key_of(key): str(override.input_line) for key, override in overrides.items()}
    if "resume" in fixed:
        raise ValueError("resume resumes one run: leave out -m (the same sweep command resumes its jobs)")
    jobs = math.prod(_count_values(override, loader) for override in overrides.values())
    if not 1 <= jobs <= MAX_JOBS:
        raise ValueError(f"a sweep of {jobs:,} jobs: must be 1 to {MAX_JOBS:,}")
    return SweepOverrides(swept, {key: text for key, text in fixed.items() if key not in swept}, jobs)


def _count_values(override: Override, loader: ConfigLoader) -> int:
    """Return the number of values without listing them; of floats at most one more than there may be jobs."""
    values: Any = override.value()
    if isinstance(values, ChoiceSweep):
        return len(values.list)
    if isinstance(values, Glob):
        return len(values.filter(loader.get_group_options(override.get_key_element())))
    if isinstance(values, RangeSweep):
        numbers = values.range()
        # Those of floats depend on Hydra's rounding: range(0,0.4,0.1) has 0.4, too.
        return len(numbers) if isinstance(numbers, range) else sum(1 for _ in itertools.islice(numbers, MAX_JOBS + 1))
    return 1
