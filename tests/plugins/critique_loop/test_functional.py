"""Barrier, caps, budgets and changes, with numbers by hand and against the slow oracle."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from llmfw.plugins.critique_loop import functional as f
from llmfw.plugins.critique_loop import reference

WORDS = ["12*3=36", "3.5", "x1y22", "no", "", "007 8", "-4", "Answer: 9"]


def test_runs_of_digits_by_hand() -> None:
    """12*3=36 has three; 3.5 two; x1y22 two; 007 8 two."""
    assert [f.digit_runs(text) for text in WORDS] == [3, 2, 2, 0, 0, 2, 1, 1]
    assert [reference.digit_runs(text) for text in WORDS] == [3, 2, 2, 0, 0, 2, 1, 1]


def test_runs_of_digits_are_the_oracles_on_any_text() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choice("019a =.-") for _ in range(30)) for _ in range(300)]
    assert [f.digit_runs(text) for text in texts] == [reference.digit_runs(text) for text in texts]


def test_oracle_10_at_the_barrier_it_passes_and_one_below_it_fails() -> None:
    """Gold has 7 runs, the response 5: the bar is min(7, 5) - 2 = 3."""
    gold, response = "1 2 3 4 5 6 7", "1 2 3 4 5"
    assert f.passes_barrier("1 2 3", response, gold) and not f.passes_barrier("1 2", response, gold)
    assert f.passes_barrier("1 2", "1 2 3 4", gold) and not f.passes_barrier("1", "1 2 3 4", gold)
    assert f.passes_barrier("1 2", response, gold, slack=3)
    assert not f.passes_barrier("1 2 3 4", response, gold, slack=0)


@pytest.mark.parametrize(
    ("refined", "runs", "passes"),
    [
        ("Answer: 36", 1, False),  # a leaked answer said again
        ("Answer: -36", 1, False),
        ("Answer: 3.5", 2, False),
        ("Answer: 7/2", 2, False),
        ("The answer is thirty-six.", 0, False),
        ("1.5*4=6\nAnswer: thirty-six", 4, True),
        ("-1+4=3\nAnswer: 3", 4, True),
        ("1/2+1/2=1", 5, True),
    ],
)
def test_oracle_10_the_barrier_counts_runs_whatever_numbers_they_are(
    refined: str, runs: int, passes: bool
) -> None:
    """Gold 12*3=36, 36-1=35, Answer: 35 has 7 runs, the response 6: the bar is 6 - 2 = 4. A decimal and a
    fraction are two runs, a sign and a number in words none.
    """
    gold, response = "12*3=36\n36-1=35\nAnswer: 35", "12*3=38\n38-1=37"
    assert f.digit_runs(refined) == reference.digit_runs(refined) == runs
    assert f.passes_barrier(refined, response, gold) is passes


def test_a_cap_counts_by_key_wherever_the_items_stand() -> None:
    items = ["a1", "b1", "a2", "b2", "a3", "c1"]
    assert f.capped(items, lambda one: one[0], 1) == ["a1", "b1", "c1"]
    assert f.capped(items, lambda one: one[0], 2) == ["a1", "b1", "a2", "b2", "c1"]
    assert f.capped(items, lambda one: one[0], 0) == items


def test_oracle_5_generations_by_hand() -> None:
    """N = 4: all right 4; one wrong 4 + 1 + 4 = 9; all wrong 4 + 4 * 5 = 24 = N^2 + 2N."""
    assert [f.generations(4, wrong) for wrong in (0, 1, 4)] == [4, 9, 24]
    assert f.generations(4, 2, refinements=1) == 8


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_oracle_5_expected_generations_are_n_and_n_times_the_chance_to_be_wrong_times_one_and_n(
    p: float,
) -> None:
    """E[N + k (1 + N)] over k wrong of N, k binomial: N + N (1 - p) (1 + N), and the sum over outcomes."""
    for n in (1, 2, 5):
        chances = [math.comb(n, k) * (1 - p) ** k * p ** (n - k) for k in range(n + 1)]
        mean = sum(chance * f.generations(n, k) for k, chance in enumerate(chances))
        assert mean == pytest.approx(n + n * (1 - p) * (1 + n))
        assert mean == pytest.approx(reference.expected_generations(n, p))


def test_oracle_3_the_difference_of_accuracies_is_what_was_gained_less_what_was_lost() -> None:
    """Of 8 items 3 right at first, 5 refined: 3 gained, 1 lost; 5/8 - 3/8 = 3/8 - 1/8. And on every pattern
    of four items.
    """
    first = [True, True, True, False, False, False, False, False]
    after = [True, True, False, True, True, True, False, False]
    found = f.change(first, after)
    assert (found.first, found.refined, found.gained, found.lost) == (3 / 8, 5 / 8, 3 / 8, 1 / 8)
    for one in itertools.product((False, True), repeat=4):
        for two in itertools.product((False, True), repeat=4):
            told = f.change(one, two)
            assert told.delta == told.gained - told.lost
            assert (told.first, told.refined) == (sum(one) / 4, sum(two) / 4)


def test_curves_are_read_at_powers_of_two_and_at_the_end() -> None:
    assert [f.sizes(k) for k in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]
