"""The mathematics. Shapes: B rows, T positions, D width."""

from __future__ import annotations

from torch import Tensor


def shifted(hidden: Tensor, shift: Tensor, *, scale: float = 0.5) -> Tensor:
    """[B, T, D] hidden states plus ``scale`` times the shift [D]."""
    return hidden + scale * shift
