"""The slow oracle: every text against every kept one; it shares no code with ``functional.py``."""

from __future__ import annotations

from collections.abc import Sequence


def duplicates(texts: Sequence[str], *, above: float) -> list[tuple[int, int, float]]:
    """(index, index of the kept text that it resembles most, similarity) of each text that is left out."""
    kept: list[int] = []
    found = []
    for index, text in enumerate(texts):
        best = (-1.0, -1)
        for other in kept:
            mine, theirs = _grams(text), _grams(texts[other])
            similarity = len(mine & theirs) / len(mine | theirs)
            if similarity > best[0]:
                best = (similarity, other)
        if best[0] > above:
            found.append((index, best[1], best[0]))
        else:
            kept.append(index)
    return found


def _grams(text: str) -> set[str]:
    words = text.lower().split()
    even = " ".join(words)
    if len(even) < 3:
        return {even}
    return {even[at] + even[at + 1] + even[at + 2] for at in range(len(even) - 2)}
