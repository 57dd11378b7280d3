"""The choice of one token. Shapes: V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def likeliest(logits: Tensor, before: Sequence[int], *, window: int = 4) -> int:
    """The likeliest token of logits [V] that isn't among the last ``window`` ones."""
    barred = before[-window:] if window else []
    logits = logits.clone()
    logits[list(barred)] = float("-inf")
    return int(logits.argmax())
