"""Intervals against tables and hand calculations."""

from __future__ import annotations

import math

import pytest

from llmfw.callbacks.intervals import mean_interval, share_interval, t_quantile


@pytest.mark.parametrize(
    ("freedom", "want"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (10, 2.2281),
        (31, 2.0395),
        (1000, 1.9623),
        (10**9, 1.9600),
    ],
)
def test_t_quantiles_are_those_of_the_printed_tables(freedom: int, want: float) -> None:
    assert t_quantile(freedom) == pytest.approx(want, abs=6e-5)


def test_a_mean_and_its_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, so 2 +- 4.3027 / sqrt 3."""
    got = mean_interval(3, 6.0, 14.0)
    assert (got.value, got.n) == (2.0, 3)
    assert [2.0 - got.low, got.high - 2.0] == pytest.approx([4.30265 / math.sqrt(3)] * 2, abs=1e-4)


def test_equal_values_have_an_interval_of_no_width_despite_rounding() -> None:
    got = mean_interval(3, 0.3, 3 * 0.1**2 - 1e-18)
    assert got.low == pytest.approx(0.1) and got.high == pytest.approx(0.1)


def test_wilsons_interval_by_hand() -> None:
    """8 of 10: the published example is 0.490 to 0.943."""
    got = share_interval(8, 10)
    assert (got.value, got.n) == (0.8, 10)
    assert (round(got.low, 3), round(got.high, 3)) == (0.490, 0.943)


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0.0, 0.2775), (10, 0.7225, 1.0)])
def test_wilsons_interval_stays_between_0_and_1(hits: int, low: float, high: float) -> None:
    """At none or all of 10 the far bound is z^2 / (10 + z^2) = 0.2775 away."""
    got = share_interval(hits, 10)
    assert (got.low, got.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert got.low >= 0.0 and got.high <= 1.0


def test_nothing_measured_is_nan_not_zero() -> None:
    assert math.isnan(share_interval(0, 0).value) and math.isnan(mean_interval(0, 0.0, 0.0).value)
    one = mean_interval(1, 5.0, 25.0)
    assert one.value == 5.0 and math.isnan(one.low) and math.isnan(one.high)
