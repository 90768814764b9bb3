"""How exact a measured accuracy is."""

from scipy.stats import binomtest


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy; from 0 to 1 without images.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if not total:
        return 0.0, 1.0
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
