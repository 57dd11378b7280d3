"""The generator of rows: a function of its arguments alone. Plain Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator


def held_out(left: int, right: int, share: float) -> bool:
    """Whether a sum belongs to the held-out side: a fixed ``share`` of all sums, whatever the seed."""
    drawn = int.from_bytes(hashlib.sha256(f"{left}+{right}".encode()).digest()[:8], "big") / 2**64
    return drawn < share


def sums(count: int, *, digits: int, seed: int, share: float, side: str) -> Iterator[tuple[int, int]]:
    """At most ``count`` different pairs of numbers of up to ``digits`` digits, all of one side.

    side: ``"train"`` or ``"validation"``; ``share`` of all pairs are of the second. Fewer come where there
    are no more: the search ends after 50 draws for each pair that was asked for.
    """
    draw = random.Random(f"{seed}/{side}")
    seen: set[tuple[int, int]] = set()
    for _ in range(50 * count):
        if len(seen) == count:
            return
        pair = (draw.randrange(10**digits), draw.randrange(10**digits))
        if pair not in seen and held_out(*pair, share) == (side == "validation"):
            seen.add(pair)
            yield pair
