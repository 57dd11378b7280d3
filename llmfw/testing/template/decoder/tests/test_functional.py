"""The guess against the slow oracle, and by hand."""

from __future__ import annotations

import random

import pytest

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")
reference = plugin_module("my_method", "reference")


@pytest.mark.parametrize("ngram", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_the_guess_equals_the_oracles(ngram: int, length: int) -> None:
    draw = random.Random(0)
    for _ in range(300):
        tokens = draw.choices(range(4), k=draw.randint(1, 20))
        settings = {"ngram": ngram, "length": length}
        assert functional.guess(tokens, **settings) == reference.guess(tokens, **settings), tokens


def test_the_longest_match_counts_and_of_equal_ones_the_latest() -> None:
    """Behind 1 2 stand 3 and then 4: two tokens match there, one in "9 2 5"."""
    assert functional.guess([1, 2, 3, 1, 2, 4, 9, 2, 5, 1, 2], ngram=2, length=2) == [4, 9]
    assert functional.guess([1, 2, 3, 1, 2, 4, 9, 2, 5, 1, 2], ngram=1, length=2) == [5, 1]
    assert functional.guess([1, 2, 3], ngram=2, length=2) == []


def test_what_is_accepted_ends_at_the_first_difference() -> None:
    assert functional.accepted([1, 2, 3], [1, 2, 9, 4]) == 2
    assert functional.accepted([1, 2], [1, 2, 3]) == 2
    assert functional.accepted([], [7]) == 0
