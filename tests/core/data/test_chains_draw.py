"""All chains of a length: how many there are, each once, and alike often where that's meant."""

from __future__ import annotations

from collections import Counter
from itertools import islice, product

import pytest

from llmfw.core.data.chains.chain import SIGNS, Chain
from llmfw.core.data.chains.draw import Chains


def brute(largest: int, signs: str, level: int) -> set[Chain]:
    """Every start and every list of operations tried."""
    operations = [
        (sign, operand)
        for sign in signs
        for operand in range(2 if sign == "*" else 1, 10 if sign == "*" else largest + 1)
    ]
    found = set()
    for start in range(1, largest + 1):
        for chosen in product(operations, repeat=level):
            chain = Chain(start, chosen)
            before = [start, *chain.values[:-1]]
            grown = all(value for value, (sign, _) in zip(before, chosen, strict=True) if sign == "*")
            if grown and all(0 <= value <= largest for value in chain.values):
                found.add(chain)
    return found


@pytest.mark.parametrize(
    ("largest", "signs", "level"),
    [(3, "+-*", 1), (2, "+-", 2), (4, "+-*", 2), (5, "*", 2), (5, "+", 3), (3, "+-*", 3), (6, "-", 4)],
)
def test_the_sequence_is_all_chains_each_once(largest: int, signs: str, level: int) -> None:
    chains = Chains(largest, signs)
    found = list(chains.sequence(level, seed=0))
    assert len(found) == len(set(found)) == chains.total(level)
    assert set(found) == brute(largest, signs, level)


def test_how_many_chains_there_are_by_hand() -> None:
    """Up to 3 with all signs: 5 from 1, 3 from 2, 3 from 3. Up to 2 with + and -: two operations go on from
    each value, so 2 starts x 2 x 2. Up to 3 with + alone: 1+1+1, and no third fits.
    """
    assert Chains(3, "+-*").total(1) == 11
    assert Chains(2, "+-").total(2) == 8
    assert [Chains(3, "+").total(level) for level in (1, 2, 3)] == [3, 1, 0]
    assert list(Chains(3, "+").sequence(3, seed=0)) == []


def test_signs_are_drawn_alike_often_where_all_are_possible() -> None:
    """Of chains whose start is 2 to 49 of 99 every sign fits; each should be a third of 1,920 +- 5 standard
    deviations (21).
    """
    drawn = islice(Chains(99, "+-*").sequence(3, seed=4), 4000)
    counts = Counter(chain.operations[0][0] for chain in drawn if 1 < chain.start < 50)
    total = sum(counts.values())
    assert total > 1800
    for sign in SIGNS:
        assert abs(counts[sign] - total / 3) < 5 * (total * 2 / 9) ** 0.5
