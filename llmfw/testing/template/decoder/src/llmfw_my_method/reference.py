"""The slow oracle: all places, sorted by the rule; it shares no code with ``functional.py``."""

from __future__ import annotations

from collections.abc import Sequence


def guess(tokens: Sequence[int], *, ngram: int, length: int) -> list[int]:
    """Arguments as in ``functional.guess``."""
    places = []
    for after in range(1, len(tokens)):
        width = 0
        while width < min(ngram, after) and tokens[after - 1 - width] == tokens[-1 - width]:
            width += 1
        if width:
            places.append((width, after))
    if not places:
        return []
    _, after = max(places)
    return [token for place, token in enumerate(tokens) if after <= place < after + length]
