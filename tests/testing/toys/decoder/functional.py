"""What is guessed of the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence


def drafted(ids: Sequence[int], *, draft: int = 3) -> list[int]:
    """At most ``draft`` of the tokens that followed the latest earlier place of the last of ``ids``."""
    places = [index + 1 for index in range(len(ids) - 1) if ids[index] == ids[-1]]
    start = places[-1] if places else len(ids)
    return list(ids[start : start + draft])
