"""The same, token by token."""

from __future__ import annotations

import torch
from torch import Tensor


def loss(
    logps: Tensor,
    reference: Tensor,
    *,
    segment: Tensor,
    position: Tensor,
    length: Tensor,
    early: float = 3.0,
    beta: float = 0.1,
) -> Tensor:
    """[P] losses; arguments as in ``functional.loss``."""
    pairs, losses = len(length) // 2, []
    for pair in range(pairs):
        margin = torch.zeros((), dtype=logps.dtype)
        for i in range(len(segment)):
            sign = {pair: 1.0, pairs + pair: -1.0}.get(int(segment[i]), 0.0)
            count = early if int(position[i]) in (1, 2) else 1.0
            margin = margin + sign * count * (logps[i] - reference[i])
        losses.append(torch.log(1 + torch.exp(-beta * margin)))
    return torch.stack(losses) if losses else logps.new_zeros(0)
