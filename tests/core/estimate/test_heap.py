"""Holes in a heap, worked out chunk by chunk."""

from __future__ import annotations

import pytest

from llmfw.core.estimate.heap import EDGES, Heap, grown

KIB, MIB = 2**10, 2**20


def test_what_follows_each_other_lies_side_by_side() -> None:
    """Two tensors of 64 KiB: the second chunk begins where the first one's ends, each with 16 bytes of head
    at most and the alignment's 64 and 32 on top."""
    heap = Heap()
    heap.take(1, 64 * KIB)
    heap.take(2, 64 * KIB)
    assert 128 * KIB <= heap.most <= 128 * KIB + 2 * (16 + 64 + 32)


def test_a_hole_whose_edge_is_taken_is_too_short_for_the_next_tensor_of_its_size() -> None:
    """Twenty-four tensors and a last one; the fifteenth loses an edge. The first and the
    fifteenth go: the first's place is taken again, the fifteenth's is not."""
    heap = Heap()
    for key in range(25):
        heap.take(key, 64 * KIB)
    before = heap.most
    heap.leave(0)
    heap.take(100, 64 * KIB)
    assert heap.most == before
    heap.leave(EDGES - 1)
    heap.take(101, 64 * KIB)
    assert heap.most >= before + 64 * KIB


def test_a_newer_glibc_uses_the_hole() -> None:
    """The same with a heap that finds room for an aligned tensor in a chunk of its size: three tensors."""
    heap = Heap(tight=True)
    for key in (1, 2, 3):
        heap.take(key, 64 * KIB)
    heap.leave(2)
    heap.take(4, 64 * KIB)
    assert heap.most <= 3 * (64 * KIB + 128)


def test_neighbours_that_go_are_one_hole() -> None:
    """a b c d, b and c go: a tensor of twice the size fits where they were."""
    heap = Heap()
    for key in (1, 2, 3, 4):
        heap.take(key, 32 * KIB)
    before = heap.most
    heap.leave(2)
    heap.leave(3)
    heap.take(5, 64 * KIB - 256)
    assert heap.most == before


def test_the_end_of_the_heap_is_taken_again() -> None:
    """The last tensor goes and one twice as large comes: it begins where that one began."""
    heap = Heap()
    heap.take(1, 32 * KIB)
    heap.take(2, 32 * KIB)
    heap.leave(2)
    heap.take(3, 64 * KIB)
    assert heap.most <= 96 * KIB + 256


def test_large_pieces_are_mapped_apart_and_given_back() -> None:
    """64 MiB come and go twice: 64 MiB at the most, in whole pages."""
    heap = Heap()
    for _ in range(2):
        heap.take(1, 64 * MIB)
        heap.leave(1)
    assert heap.most == pytest.approx(64 * MIB, abs=8 * KIB)


def test_a_piece_that_was_mapped_once_comes_from_the_heap_the_next_time() -> None:
    """1 MiB is above the first threshold (128 KiB); once freed the threshold is its size, and 512 KiB come
    from the heap, beside which a second mapped piece of 2 MiB stands."""
    heap = Heap()
    heap.take(1, MIB)
    heap.leave(1)
    heap.take(2, 512 * KIB)
    heap.take(3, 2 * MIB)
    assert heap.most == pytest.approx(2.5 * MIB, abs=16 * KIB)


def test_steps_after_one_another_start_with_what_the_first_left_free() -> None:
    """Twice the same step, whose only tensor goes at its end: no more than once."""
    step = [(1, 100 * KIB), (1, -100 * KIB)]
    assert grown([50 * KIB], [step, step]) <= 150 * KIB + 512
