"""Tests of differences, calculated by hand and by scipy from the values themselves."""

import math

import numpy as np
import pytest
from scipy import stats

from fmnist.compare.statistics import holm, sample, welch


@pytest.mark.parametrize("sizes", [(2, 2), (2, 9), (30, 5)])
def test_welch_equals_scipy_on_the_values(sizes: tuple[int, int]) -> None:
    draw = np.random.default_rng(sum(sizes))
    a, b = draw.normal(0.92, 0.003, sizes[0]), draw.normal(0.925, 0.01, sizes[1])
    assert sample(a.tolist()).std == pytest.approx(a.std(ddof=1))
    expected = stats.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    found = welch(sample(a.tolist()), sample(b.tolist()))
    values = (found.mean, found.low, found.high, found.p)
    assert values == pytest.approx((a.mean() - b.mean(), low, high, expected.pvalue), rel=1e-9)


@pytest.mark.parametrize("tied", [0.1, 0.913, 0.8])  # three 0.1 have a mean of 0.10000000000000002 if summed up
def test_seeds_that_all_tie_have_no_p_value(tied: float) -> None:
    for other in ([0.9, 0.9], [tied] * 3):
        found = welch(sample([tied] * 3), sample(other))
        assert found.mean == pytest.approx(tied - other[0])
        assert all(math.isnan(value) for value in (found.low, found.high, found.p))
    assert welch(sample([0.8] * 3), sample([0.9, 0.91])).p == pytest.approx(stats.ttest_1samp([0.9, 0.91], 0.8).pvalue)


@pytest.mark.parametrize("other", [[0.8], [0.8, math.nan], []])
def test_one_seed_or_a_missing_value_is_not_tested(other: list[float]) -> None:
    for pair in ((sample([0.9, 0.91]), sample(other)), (sample(other), sample([0.9, 0.91]))):
        assert math.isnan(welch(*pair).p)


def test_holm_by_hand() -> None:
    # 3 * 0.01; 2 * 0.03; 0.04, but no less than the one before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
    nan, corrected = holm([math.nan, 0.02])
    assert (math.isnan(nan), corrected) == (True, 0.02)
