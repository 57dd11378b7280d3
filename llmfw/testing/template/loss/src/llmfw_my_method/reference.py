"""The slow oracle, pair by pair, as the paper prints it; it shares no code with ``functional.py``."""

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
    beta: float = 0.1,
    flipped: float = 0.1,
) -> Tensor:
    """[P] losses; arguments as in ``functional.loss``."""
    pairs = len(length) // 2
    losses = []
    for pair in range(pairs):
        margin = torch.zeros((), dtype=logps.dtype)
        for token in range(len(segment)):
            if int(segment[token]) == pair:
                margin = margin + beta * (logps[token] - reference[token])
            if int(segment[token]) == pairs + pair:
                margin = margin - beta * (logps[token] - reference[token])
        as_labelled = -torch.log(torch.sigmoid(margin))
        other_way = -torch.log(torch.sigmoid(-margin))
        losses.append((1 - flipped) * as_labelled + flipped * other_way)
    return torch.stack(losses) if losses else logps.new_zeros(0)
