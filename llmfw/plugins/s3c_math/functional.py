"""The masked objective as a mean over sequences, in torch (arXiv 2409.01524). Shapes: N trained tokens, S
sequences.

The mean over tokens needs nothing of this: the core's cross entropy sums over trained tokens, and the mask
says which those are.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_means(logps: Tensor, segment: Tensor, length: Tensor) -> Tensor:
    """[S] means of the [N] log-probs by sequence; exactly 0 for one of no trained token.

    Args:
        segment: [N] int64, the sequence that each belongs to.
        length: [S] int64, trained tokens of each.
    """
    sums = torch.zeros(len(length), dtype=logps.dtype, device=logps.device).index_add(0, segment, logps)
    return sums / length.clamp(min=1)


def loss(logps: Tensor, segment: Tensor, length: Tensor) -> Tensor:
    """Minus the sum over sequences of their mean log-prob, in nats; arguments as of ``sequence_means``."""
    return -sequence_means(logps, segment, length).sum()
