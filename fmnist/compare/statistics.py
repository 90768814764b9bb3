"""Whether a difference between two settings is more than noise."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t alone: scipy.stats takes half a second to import

LEVEL = 0.05
NAN = math.nan


@dataclass(frozen=True)
class Sample:
    """What is known of a setting's seeds."""

    n: int
    mean: float
    sd: float
    """With n - 1; NaN for a single value."""

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.sd / math.sqrt(self.n) if self.n else NAN


@dataclass(frozen=True)
class Difference:
    """Of two means, with its 95 % confidence interval and the two-sided p-value; NaN where it can't be told."""

    mean: float
    low: float
    high: float
    p: float


def sample(values: Sequence[float]) -> Sample:
    """Mean and standard deviation; both NaN as soon as one value is."""
    if len(values) > 1 and all(value == values[0] for value in values):
        return Sample(len(values), values[0], 0.0)  # summing them up would make a spread of rounding errors
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else NAN
    return Sample(len(values), math.fsum(values) / len(values) if values else NAN, sd)


def pooled_sd(samples: Iterable[Sample]) -> float:
    """The standard deviation that settings have in common, each around its own mean; NaN if none has two values.

    A few seeds tell their own only roughly (what two say is less than a third of it in a quarter of all cases), those
    of all settings together better, so far as no setting changes it much.

    Source: https://en.wikipedia.org/wiki/Pooled_variance
    """
    several = [known for known in samples if known.n > 1]
    freedom = sum(known.n - 1 for known in several)
    return math.sqrt(math.fsum((known.n - 1) * known.sd**2 for known in several) / freedom) if freedom else NAN


def welch(a: Sample, b: Sample) -> Difference:
    """a - b by Welch's t-test, which takes neither equal variances nor equal numbers for granted.

    Where neither varies, any difference counts as certain.

    Source: Welch, The generalization of "Student's" problem when several different population variances are involved,
    1947, as in https://en.wikipedia.org/wiki/Welch%27s_t-test
    """
    difference = a.mean - b.mean
    if min(a.n, b.n) < 2 or math.isnan(difference):
        return Difference(difference, NAN, NAN, NAN)
    va, vb = a.sd**2 / a.n, b.sd**2 / b.n
    error = math.sqrt(va + vb)
    if error == 0:
        return Difference(difference, difference, difference, float(difference == 0))
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    half = error * float(stdtrit(freedom, 1 - LEVEL / 2))
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Difference(difference, difference - half, difference + half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values, corrected for there being several; NaNs stay, and don't count.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979, as in
    https://en.wikipedia.org/wiki/Holm%E2%80%93Bonferroni_method
    """
    corrected = [NAN] * len(p_values)
    told = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for place, (p, index) in enumerate(told):
        largest = max(largest, min(1.0, (len(told) - place) * p))
        corrected[index] = largest
    return corrected
