"""The method: how a gate scales what it is put on. Pure torch.

Shapes: B rows, T positions, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gated(states: Tensor, gate: Tensor, *, scale: float) -> Tensor:
    """[B, T, D] states times 1 + scale * tanh(gate); gate: [1], 0 at first, so that nothing changes then."""
    return states * (1 + scale * torch.tanh(gate)).to(states.dtype)
