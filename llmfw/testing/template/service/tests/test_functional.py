"""Numbers as people write them."""

from __future__ import annotations

import pytest

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12.0),
        ("first 3, so it is 12.", 12.0),
        ("-1,200.5", -1200.5),
        ("x = −3", -3.0),
        ("3/4 of it", 0.75),
        ("12 %", 0.12),
        ("about 5e-3", 0.005),
        ("7 apples and v2 of them", 7.0),
        ("none", None),
        ("1/0", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert functional.last_number(text) == (number if number is None else pytest.approx(number))


def test_numbers_are_the_same_within_the_tolerance_of_the_larger_one() -> None:
    """100 and 99 differ by 1 % of 100."""
    assert functional.same(100.0, 99.0, tolerance=0.0101)
    assert not functional.same(100.0, 99.0, tolerance=0.0099)
    assert functional.same(0.0, 0.0, tolerance=0.0) and not functional.same(0.0, 1e-9, tolerance=0.1)
