"""Tests of differences, by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from fmnist.compare.statistics import Difference, holm, sample, welch


def values(difference: Difference) -> tuple[float, float, float, float]:
    return (difference.mean, difference.low, difference.high, difference.p)


def test_mean_and_sample_standard_deviation() -> None:
    found = sample([0.90, 0.92, 0.97])
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(0.93), pytest.approx(math.sqrt(0.0013)))
    assert math.isnan(sample([0.9]).sd)
    assert sample([0.1] * 3).sd == 0  # the mean of three 0.1s is 0.10000000000000002 if they are summed up
    assert sample([0.1] * 3).mean == 0.1
    assert math.isnan(sample([0.9, math.nan]).mean)
    assert math.isnan(sample([math.nan, math.nan]).sd)
    assert math.isnan(sample([]).mean)


def test_welch_by_hand() -> None:
    # Variances 1 and 4 of three values each: standard error sqrt(5/3), degrees of freedom (5/3)^2 / (17/18) = 50/17.
    found = welch(sample([1.0, 2.0, 3.0]), sample([2.0, 4.0, 6.0]))
    t, freedom = -2 / math.sqrt(5 / 3), 50 / 17
    half = stats.t.ppf(0.975, freedom) * math.sqrt(5 / 3)
    assert values(found) == pytest.approx((-2.0, -2 - half, -2 + half, 2 * stats.t.cdf(t, freedom)), rel=1e-9)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (2, 9), (30, 5)])
def test_welch_is_that_of_scipy(sizes: tuple[int, int]) -> None:
    draw = np.random.default_rng(sum(sizes))
    a, b = draw.normal(0.92, 0.003, sizes[0]), draw.normal(0.925, 0.01, sizes[1])
    theirs = stats.ttest_ind(a, b, equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    ours = welch(sample(a.tolist()), sample(b.tolist()))
    assert values(ours) == pytest.approx((a.mean() - b.mean(), low, high, theirs.pvalue), rel=1e-9)


def test_where_nothing_varies_any_difference_is_certain() -> None:
    same = sample([0.9, 0.9, 0.9])
    assert values(welch(same, sample([0.9, 0.9]))) == (0, 0, 0, 1)
    assert welch(same, sample([0.8, 0.8])).p == 0
    assert welch(same, sample([0.8, 0.82])).p == pytest.approx(stats.ttest_1samp([0.8, 0.82], 0.9).pvalue)


@pytest.mark.parametrize("other", [[0.8], [0.8, math.nan], []])
def test_one_seed_or_no_value_can_not_be_tested(other: list[float]) -> None:
    for pair in ((sample([0.9, 0.91]), sample(other)), (sample(other), sample([0.9, 0.91]))):
        assert all(math.isnan(value) for value in values(welch(*pair))[1:])


def test_holm_by_hand() -> None:
    # 3 * 0.01; 2 * 0.03; 0.04, but no less than the one before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_holm_does_not_count_what_could_not_be_tested() -> None:
    nan, corrected = holm([math.nan, 0.02])
    assert math.isnan(nan)
    assert corrected == 0.02
