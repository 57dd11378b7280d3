"""The index against the slow oracle, and numbers worked out by hand."""

from __future__ import annotations

import random

import pytest

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")
reference = plugin_module("my_method", "reference")


@pytest.mark.parametrize("above", [0.0, 0.3, 0.7, 1.0])
def test_the_index_finds_what_the_oracle_finds(above: float) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("ab c", k=draw.randint(0, 12))) for _ in range(80)]
    got = [(d.index, d.of, d.similarity) for d in functional.duplicates(texts, above=above)]
    assert got == reference.duplicates(texts, above=above)


def test_a_similarity_by_hand() -> None:
    """abcd has abc and bcd, abce has abc and bce: one of three."""
    (found,) = functional.duplicates(["abcd", "abce"], above=0.3)
    assert (found.index, found.of) == (1, 0) and found.similarity == pytest.approx(1 / 3)


def test_case_and_white_space_do_not_count_and_at_one_nothing_goes() -> None:
    texts = ["One  river", "one river", "one river"]
    assert [d.index for d in functional.duplicates(texts, above=0.99)] == [1, 2]
    assert functional.duplicates(texts, above=1.0) == []
