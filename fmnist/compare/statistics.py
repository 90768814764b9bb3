"""Test whether two settings differ significantly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import Series
from scipy import stats

LEVEL = 0.05
"""Significance level."""
ROUNDING = 1e-12
"""Relative spread that rounding errors alone explain."""
NAN = math.nan


@dataclass(frozen=True)
class Sample:
    """Number, mean and standard deviation (with n - 1) of a setting's seeds; NaN if unknown."""

    n: int
    mean: float
    std: float


@dataclass(frozen=True)
class Difference:
    """Difference of two means, its 95 % confidence interval and two-sided p-value; NaN if unknown."""

    mean: float
    low: float = NAN
    high: float = NAN
    p: float = NAN


def sample(values: Sequence[float]) -> Sample:
    """Return the values' number, mean and standard deviation. A NaN among them makes both NaN."""
    series = Series(values, dtype=float)
    return Sample(len(series), float(series.mean(skipna=False)), float(series.std(skipna=False)))


def welch(a: Sample, b: Sample) -> Difference:
    """Return a - b, tested by Welch's t-test: equal variances aren't assumed.

    Two samples that don't vary at all, as two seeds that tie, have no known variance: they aren't tested.
    """
    difference = a.mean - b.mean
    if min(a.n, b.n) < 2 or math.isnan(difference) or max(a.std, b.std) <= ROUNDING * max(abs(a.mean), abs(b.mean)):
        return Difference(difference)
    p = stats.ttest_ind_from_stats(a.mean, a.std, a.n, b.mean, b.std, b.n, equal_var=False).pvalue
    va, vb = a.std**2 / a.n, b.std**2 / b.n
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    low, high = stats.t.interval(1 - LEVEL, freedom, loc=difference, scale=math.sqrt(va + vb))
    return Difference(difference, float(low), float(high), float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number. NaNs stay NaN and don't count.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979
    """
    p = Series(p_values, dtype=float)
    ordered = p.dropna().sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return [float(value) for value in corrected.reindex(p.index)]
