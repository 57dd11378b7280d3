"""95% intervals of means and shares."""

from __future__ import annotations

import math

from llmfw.core.records import Estimate

_LEVEL = 0.95
_Z = 1.959963984540054
"""97.5% point of the normal distribution."""


def mean_interval(n: int, total: float, squares: float) -> Estimate:
    """Mean of n values with Student's t interval, from their sum and sum of squares.

    Below two values the bounds are NaN, and so is the mean of none.
    """
    mean = total / n if n else math.nan
    variance = max(0.0, (squares - n * mean * mean) / (n - 1)) if n > 1 else math.nan
    return t_interval(n, mean, math.sqrt(variance))


def t_interval(n: int, mean: float, deviation: float) -> Estimate:
    """Student's t interval of the mean of n values with this standard deviation (of a sample: over n - 1).

    Below two values the bounds are NaN.
    """
    reach = t_quantile(n - 1) * deviation / math.sqrt(n) if n > 1 else math.nan
    return Estimate(value=mean, low=mean - reach, high=mean + reach, n=n)


def share_interval(hits: int, n: int) -> Estimate:
    """Share of hits among n with Wilson's interval; NaN where n is 0."""
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    share = hits / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    # at a share of 0 or 1 the bound is exactly that; rounding must not push it past
    return Estimate(value=share, low=max(0.0, middle - reach), high=min(1.0, middle + reach), n=n)


def t_quantile(freedom: int) -> float:
    """97.5% point of Student's t distribution: half of the 95% interval, in standard errors.

    Bisection on the angle atan(t / sqrt(freedom)), in which the distribution is a finite sum (Abramowitz and
    Stegun, 26.7.3 and 26.7.4).
    """
    if freedom > 10_000:  # there t differs from z by less than 3e-4 of it
        return _Z
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _two_sided(middle, freedom) < _LEVEL:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _two_sided(angle: float, freedom: int) -> float:
    """Probability that \\|t\\| stays below sqrt(freedom) * tan(angle)."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
