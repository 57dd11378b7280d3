"""The method: near-duplicates by the share of common trigrams, found through an index. Plain Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Duplicate:
    """A text that is left out: its index, that of the kept text which it resembles, and how much."""

    index: int
    of: int
    similarity: float


def trigrams(text: str) -> frozenset[str]:
    """The different runs of three characters, case and white space evened out; of a short text the text."""
    even = " ".join(text.lower().split())
    return frozenset(even[start : start + 3] for start in range(max(1, len(even) - 2)))


def duplicates(texts: Sequence[str], *, above: float) -> list[Duplicate]:
    """Texts whose Jaccard similarity to an earlier kept text is above a threshold, in order.

    Jaccard similarity: common trigrams over all trigrams of the two, 0 to 1. Only kept texts that share a
    trigram are looked at. Of several that it resembles the most similar one is named, the first of equals.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    sizes: dict[int, int] = {}
    found: list[Duplicate] = []
    for index, text in enumerate(texts):
        mine = trigrams(text)
        common = Counter(other for gram in mine for other in holders[gram])
        similar = {other: n / (len(mine) + sizes[other] - n) for other, n in common.items()}
        of = max(similar, key=lambda other: (similar[other], -other), default=None)
        if of is not None and similar[of] > above:
            found.append(Duplicate(index, of, similar[of]))
            continue
        sizes[index] = len(mine)
        for gram in mine:
            holders[gram].append(index)
    return found
