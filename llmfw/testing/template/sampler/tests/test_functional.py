"""The verifier against its oracle and against numbers worked out by hand."""

from __future__ import annotations

import random

import pytest

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")
reference = plugin_module("my_method", "reference")


def test_the_score_equals_the_oracle() -> None:
    draw = random.Random(0)
    for _ in range(200):
        answer, expected = ("".join(draw.choices("ab12", k=draw.randint(0, 9))) for _ in range(2))
        assert functional.score(answer, expected) == pytest.approx(reference.score(answer, expected))


def test_a_score_by_hand() -> None:
    """ "aab" and "abcc" share an a and a b: 2 * 2 / (3 + 4)."""
    assert functional.score("aab", "abcc") == pytest.approx(4 / 7)


def test_the_best_is_the_first_of_equals_and_never_blank() -> None:
    assert functional.best(["", "13", "12", "21"], "12") == 2
    assert functional.best([" ", ""], "12") is None
    assert functional.best([], "12") is None


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 430, 570), (1.0, 1000, 1000)])
def test_a_share_of_the_problems_is_chosen(share: float, low: int, high: int) -> None:
    count = sum(functional.chosen(f"problem {number}", share) for number in range(1000))
    assert low <= count <= high
