"""The cost model of tiles: its numbers by hand, its bounds over many shapes."""

from __future__ import annotations

import pytest
import torch

from llmfw.losses.logps import chunk_rows, token_logps
from llmfw.losses.logps_tiles import DEVICES, SHARE, Tile, budget, overhead, tile_of


def test_the_side_of_a_cpu_tile_worked_out_by_hand() -> None:
    """Operands of 1.25 x 4 bytes, 9 operations a byte, a twentieth: 1.25 x 4 x 9 / 0.05 = 900 a side.

    10,000 tokens are 12 parts of 834 (11 would be 910 each); 49,152 words are 55 of 894.
    """
    assert tile_of(10_000, 49_152, 576) == Tile(rows=834, words=894)


def test_what_a_tile_costs_worked_out_by_hand() -> None:
    """900 x 900 at width 500: traffic 1.25 x 4 x (2 / 900) x 9 / 2 = 0.05, calls 1e7 / (8 x 900^2 x 500) =
    0.0031.
    """
    assert overhead(Tile(rows=900, words=900), 500) == pytest.approx(0.05 + 1e7 / 3.24e9)
    assert overhead(Tile(rows=64, words=64), 500) > 10 * SHARE


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("tokens", [0, 1, 7, 341, 1000, 100_000])
@pytest.mark.parametrize(
    ("vocabulary", "width"), [(1, 1), (37, 16), (49_152, 576), (262_144, 640), (128_256, 4096)]
)
@pytest.mark.parametrize(("itemsize", "buffers"), [(4, 1), (2, 2), (8, 1)])
def test_tiles_stay_within_the_budget_and_are_even(
    device: str, tokens: int, vocabulary: int, width: int, itemsize: int, buffers: int
) -> None:
    tile = tile_of(tokens, vocabulary, width, itemsize=itemsize, buffers=buffers, device=device)
    allowed = budget(vocabulary, width, itemsize, device)
    assert tile.rows * tile.words * max(4, itemsize) * buffers <= allowed
    assert allowed <= max(DEVICES.get(device, DEVICES["cpu"]).least, vocabulary * width * itemsize / 4)
    for total, side in ((tokens, tile.rows), (vocabulary, tile.words)):
        assert 1 <= side <= max(1, total)
        parts = -(-total // side)
        assert total - (parts - 1) * side > side - parts or parts <= 1, "no small part is left over"


@pytest.mark.parametrize(("vocabulary", "width"), [(49_152, 576), (262_144, 640), (128_256, 4096)])
def test_where_there_are_tokens_enough_the_overhead_is_as_stated(vocabulary: int, width: int) -> None:
    """Twice the share at most: traffic and calls have one each, and evening out costs a few percent of a
    side.
    """
    assert overhead(tile_of(20_000, vocabulary, width), width) <= 2 * SHARE


def test_few_tokens_meet_more_words_at_once() -> None:
    """One token, 64 wide: calls of 1e7 operations are a twentieth of 8 x 64 x W from W = 390,625 words on."""
    assert tile_of(1, 1_000_000, 64).words == pytest.approx(390_625, rel=0.15)
    assert tile_of(1000, 1_000_000, 64).words < 2_000


def test_rows_of_whole_logits_worked_out_by_hand() -> None:
    """The weight alone is read again: 450 rows, half a side; a quarter of 262,144 x 640 is 160 rows."""
    assert chunk_rows(450, 1000, width=576) == 450
    assert chunk_rows(451, 1000, width=576) == 226
    assert chunk_rows(16_000, 262_144, width=640) == 160
    assert chunk_rows(16_000, 262_144, width=640, buffers=3) == 53
    assert chunk_rows(0, 1000) == 1


def test_the_tiles_of_a_call_are_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is asked with the call's own shapes, and what it says is what is multiplied."""
    import llmfw.losses.logps as module

    asked: list[tuple[object, ...]] = []

    def answer(*shape: int, **rest: object) -> Tile:
        asked.append((*shape, rest))
        return Tile(rows=2, words=3)

    monkeypatch.setattr(module, "tile_of", answer)
    shapes: set[tuple[int, ...]] = set()
    product = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda a, b, **out: (shapes.add((a.shape[0], b.shape[1])), product(a, b, **out))[1]
    )
    token_logps(torch.ones(4, 5), torch.ones(6, 5), torch.zeros(4, dtype=torch.int64), softcap=2.0)
    assert asked == [(4, 6, 5, {"itemsize": 4, "buffers": 2, "device": "cpu"})]
    assert shapes == {(2, 3)}
