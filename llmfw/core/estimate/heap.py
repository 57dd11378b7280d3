"""What glibc's heap makes of a step's memory: how far it grows, holes included.

torch asks for tensors with ``posix_memalign``. Before version 2.38 that wants room for the alignment beside
the tensor's own; what is cut off at the edges is free, but where something small has settled in it, the hole
that the tensor leaves is too short for the next one of its size, and the heap grows beyond what is in use.
Followed here chunk by chunk: best fit, neighbours joined, large pieces mapped apart (malloc/malloc.c of
glibc). How many edges are taken isn't known beforehand: one in ``EDGES`` is assumed, calibrated on measured
peaks.
"""

from __future__ import annotations

import os
from bisect import bisect_left, insort
from collections.abc import Iterable

_ALIGNMENT, _HEAD, _LEAST = 64, 16, 32
_MAPPED_AT_FIRST, _MAPPED_AT_MOST = 128 * 2**10, 32 * 2**20
"""Bytes from which a request is mapped apart: at first, and at most once such pieces have been freed."""
_PAGE = 4096
EDGES = 15
"""Of so many tensors one loses its edge to something small. Calibrated on three of the cases of
benchmarks/estimate.py (cached reference, LoRA, recomputed layers); the others are predicted with it.
"""


class Heap:
    """Addresses of one process's heap and mappings. Sizes in bytes."""

    def __init__(self, *, tight: bool = False) -> None:
        self.tight = tight
        """Whether an aligned request fits into a free chunk of its own size (glibc 2.38 and later)."""
        self.most = 0
        """The most that heap and mappings together have taken."""
        self._end = 0
        self._placed = 0
        self._mapped = 0
        self._threshold = _MAPPED_AT_FIRST
        self._by_size: list[tuple[int, int]] = []
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._held: dict[int, tuple[int, int]] = {}

    def take(self, key: int, size: int) -> None:
        """A tensor comes."""
        if size <= 0:
            return
        if size >= self._threshold:
            pages = -(-(size + _ALIGNMENT + _HEAD) // _PAGE) * _PAGE
            self._held[key] = (-1, pages)
            self._mapped += pages
        else:
            self._place(key, -(-(size + _HEAD // 2) // _HEAD) * _HEAD)
        self.most = max(self.most, self._end + self._mapped)

    def leave(self, key: int) -> None:
        """A tensor goes."""
        start, size = self._held.pop(key, (0, 0))
        if not size:
            return
        if start < 0:
            self._mapped -= size
            if self._threshold < size <= _MAPPED_AT_MOST:
                self._threshold = size
            return
        self._free(start, size)

    def _place(self, key: int, size: int) -> None:
        need = size if self.tight else size + _ALIGNMENT + _LEAST
        at = bisect_left(self._by_size, (need, -1))
        if at < len(self._by_size):
            whole, start = self._by_size[at]
            self._unlist(start, whole)
        else:
            start, whole = self._grow(need)
        if whole > need:
            self._list(start + need, whole - need)
        self._placed += 1
        taken = not self.tight and self._placed % EDGES == 0
        self._held[key] = (start, size if taken else need)

    def _grow(self, need: int) -> tuple[int, int]:
        """A chunk at the heap's end; a free one that ends there is part of it."""
        start = self._ends.get(self._end, self._end)
        if start < self._end:
            self._unlist(start, self._end - start)
        self._end = start + need
        return start, need

    def _free(self, start: int, size: int) -> None:
        after = self._starts.get(start + size)
        if after:
            self._unlist(start + size, after)
            size += after
        before = self._ends.get(start)
        if before is not None:
            self._unlist(before, start - before)
            start, size = before, size + start - before
        if start + size == self._end:
            self._end = start  # the heap's top: taken from again first of all, so no chunk of its own
        else:
            self._list(start, size)

    def _list(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._starts[start], self._ends[start + size] = size, start

    def _unlist(self, start: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, start))]
        del self._starts[start], self._ends[start + size]


def grown(standing: Iterable[int], steps: Iterable[Iterable[tuple[int, int]]], *, tight: bool = False) -> int:
    """Bytes that heap and mappings take at the most.

    Args:
        standing: sizes of the tensors that are there all along.
        steps: events (tensor, bytes; below 0: it goes) of one step after another.
    """
    heap = Heap(tight=tight)
    for number, size in enumerate(standing):
        heap.take(-1 - number, size)
    for step in steps:
        mine: list[int] = []
        for key, change in step:
            if change > 0:
                heap.take(key, change)
                mine.append(key)
            elif change < 0:
                heap.leave(key)
        for key in mine:  # what a step leaves behind is let go before the next
            heap.leave(key)
    return heap.most


def libc() -> tuple[int, int] | None:
    """The version of glibc; None: another library allocates (musl, or one that is preloaded)."""
    if "malloc" in os.environ.get("LD_PRELOAD", ""):
        return None
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (ValueError, OSError):
        return None
