"""The generator: right, different, repeatable, and never on both sides."""

from __future__ import annotations

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")


def made(count: int = 300, seed: int = 0, side: str = "train", digits: int = 2) -> list[tuple[int, int]]:
    return list(functional.sums(count, digits=digits, seed=seed, share=0.2, side=side))


def test_the_pairs_are_as_many_as_asked_for_different_and_in_range() -> None:
    pairs = made()
    assert len(pairs) == len(set(pairs)) == 300
    assert all(0 <= number < 100 for pair in pairs for number in pair)


def test_they_are_the_same_for_one_seed_and_others_for_another() -> None:
    assert made() == made() != made(seed=1)


def test_no_sum_is_on_both_sides_whatever_the_seed() -> None:
    """Held out is decided by the sum alone: 100 one-digit sums fall apart into two sets."""
    train, validation = (
        {pair for seed in range(3) for pair in made(100, seed, side, 1)} for side in ("train", "validation")
    )
    assert train and validation and not train & validation
    assert train | validation == {(left, right) for left in range(10) for right in range(10)}


def test_a_search_for_more_sums_than_there_are_ends() -> None:
    assert len(made(1000, digits=1)) < 100
