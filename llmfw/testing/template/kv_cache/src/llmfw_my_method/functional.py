"""The method: which positions of a cache are kept. Pure torch.

Shapes: B rows, H heads, T positions, D width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kept(states: Tensor, *, sinks: int, recent: int) -> Tensor:
    """[B, H, T, D] -> [B, H, min(T, sinks + recent), D]: the first ``sinks`` and the last ``recent`` ones."""
    surplus = max(0, states.shape[-2] - sinks - recent)
    return torch.cat([states[..., :sinks, :], states[..., sinks + surplus :, :]], dim=-2)
