"""Which entries are kept."""

from __future__ import annotations

import math


def kept(entries: int, *, budget: float = 0.25) -> list[int]:
    """Indices of the first two and the latest of ``entries``, ``budget`` of them (at least three) in all."""
    count = min(entries, max(3, math.floor(budget * entries)))
    return [index for index in range(entries) if index < 2 or index >= entries - (count - 2)]
