"""How a filling is cut up: batches by positions, claims by seconds, lines about progress."""

from __future__ import annotations

import pytest

from llmfw.core.models import ReferenceCache, reference_key
from llmfw.core.models.reference_cache.filling import State, batches
from llmfw.core.models.reference_cache.parts import PATTERN


def lengths(found):
    return [[max(len(side.ids) for side in one.sequences) for one in members] for members in found]


def test_a_batch_holds_as_many_positions_as_the_budget_says(sample) -> None:
    """Pairs of (6, 2), (5, 5), (3, 2) and (2, 2) tokens. Padded, two pairs need 2 * 2 * 6 = 24 positions;
    without padding 8 + 10 = 18, and three of them 23.
    """
    sizes = [(6, 2), (5, 5), (3, 2), (2, 2)]
    four = [sample(str(a), (range(a), 1), (range(b), 1)) for a, b in sizes]
    assert lengths(batches(four, 24, padded=True)) == [[6, 5], [3, 2]]
    assert lengths(batches(four, 23, padded=True)) == [[6], [5, 3], [2]]
    assert lengths(batches(four, 23, padded=False)) == [[6, 5, 3], [2]]
    assert lengths(batches(four, 1, padded=True)) == [[6], [5], [3], [2]]


def test_packed_units_and_pairs_never_share_a_batch(sample) -> None:
    from dataclasses import replace

    pair = sample("a", ((1, 2), 1), ((1, 3), 1))
    unit = replace(sample("b", ((1, 2), 1), ((1, 3), 1), ((4, 4), 1)), packed=True)
    assert [len(members) for members in batches([unit, pair, pair], 1000, padded=True)] == [1, 2]


def test_the_longest_go_first_and_each_batch_is_told_of(built, reference, pairs, collate, tmp_path) -> None:
    told: list[State] = []
    widths = []

    def watched(batch):
        widths.append(batch.input_ids.shape[1])
        return reference.logps(batch)

    cache = ReferenceCache(reference_key(built), tmp_path)
    cache.fill(pairs, collate, watched, budget=8, progress=told.append)
    assert widths == [5, 4, 4]
    assert [(one.samples, one.left, one.tokens, one.tokens_left) for one in told] == [
        (1, 2, 8, 12), (2, 1, 14, 6), (3, 0, 20, 0),
    ]  # fmt: skip
    assert all(one.speed > 0 for one in told) and told[-1].seconds_left == 0


def test_a_part_holds_some_seconds_work(built, reference, many, collate, tmp_path, monkeypatch) -> None:
    """Every claim of one batch (room is never more than the budget's 16 positions, two pairs): 20 parts."""
    from llmfw.core.models.reference_cache import filling

    monkeypatch.setattr(filling, "_SECONDS", 0.0)
    cache = ReferenceCache(reference_key(built), tmp_path / "small")
    cache.fill(many, collate, reference.logps, budget=16)
    assert len(list(cache.folder.glob(PATTERN))) == 20
    monkeypatch.setattr(filling, "_SECONDS", 1e9)
    cache = ReferenceCache(reference_key(built), tmp_path / "large")
    cache.fill(many, collate, reference.logps, budget=16)
    assert len(list(cache.folder.glob(PATTERN))) == 2


def test_what_was_computed_before_an_interruption_is_kept(built, reference, pairs, collate, tmp_path) -> None:
    calls = []

    def stops(batch):
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reference.logps(batch)

    cache = ReferenceCache(reference_key(built), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(pairs, collate, stops, budget=1)
    again = ReferenceCache(reference_key(built), tmp_path)
    assert len(again) == 1 and again.fill(pairs, collate, reference.logps).samples == 2
    assert not list((again.folder / ".claims").iterdir())


def test_a_collate_of_another_order_is_found_out(built, reference, pairs, collate, tmp_path) -> None:
    cache = ReferenceCache(reference_key(built), tmp_path)
    with pytest.raises(ValueError, match="collate's order"):
        cache.fill(pairs, lambda examples: collate(examples[:1]), reference.logps)
