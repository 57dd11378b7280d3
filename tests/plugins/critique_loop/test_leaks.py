"""Which critiques say the gold answer."""

from __future__ import annotations

from fractions import Fraction

import pytest

from llmfw.plugins.critique_loop.leaks import leaks, numbers_in, value_of


@pytest.mark.parametrize(
    ("critique", "answer"),
    [
        ("12*3=36", "36"), ("It is 36.", "36"), ("36", "36"), ("it is 36%", "$36$"), ("1,000 in all", "1000"),
        ("so 3.50", "3.5"), ("x = .5", "0.5"),
        ("x=0.5", "1/2"), ("so 1/2", "0.5"), (r"\frac{1}{2} is left", "1/2"),
        ("3-7=-4", "-4"), ("the answer is -4", "-4"), ("(-4)", "-4"), ("5--4=9", "-4"),
        ("7 - 4 = 3", "4"), ("7-4=3", "4"),
        ("The answer is thirty-six.", "36"), ("Explanation: Thirty six", "36"),
        ("it equals minus four.", "-4"),
        ("it is B", "B"),
    ],
)  # fmt: skip
def test_the_answer_is_told_however_its_number_is_written(critique: str, answer: str) -> None:
    assert leaks(critique, answer)


@pytest.mark.parametrize(
    ("critique", "answer"),
    [
        ("136 and 360", "36"), ("36.5 or 0.36", "36"), ("x", ""), ("", "36"),
        ("13.5 and 3.55", "3.5"), ("11/2 and 1/20", "1/2"), ("6/2=3", "2"), ("1/0", "1"),
        ("3-7=-4", "4"), ("7-4=3", "-4"), ("7 -4", "-4"), ("it equals minus four.", "4"),
        ("this is a wrong one.", "1"), ("is thirty-six apples", "36"), ("Bad", "B"),
    ],
)  # fmt: skip
def test_another_number_is_no_leak(critique: str, answer: str) -> None:
    assert not leaks(critique, answer)


def test_numbers_are_read_by_their_value() -> None:
    """12*3=38 holds 12, 3, 38; 1-2=-1 holds 1, 2, -1."""
    assert list(numbers_in("12*3=38")) == [12, 3, 38] and list(numbers_in("1-2=-1")) == [1, 2, -1]
    said = ("-3", "2/4", "0.75", "minus twelve", "ninety-nine", "a 3", "3 4", "")
    assert [value_of(text) for text in said] == [
        -3,
        Fraction(1, 2),
        Fraction(3, 4),
        -12,
        99,
        None,
        None,
        None,
    ]
