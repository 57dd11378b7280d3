"""The slow oracle: likelihoods split at the public length, pair by pair (arXiv 2409.06411, eq. 9 to 12)."""

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
    alpha: float = 0.5,
    beta: float = 0.1,
    ref_mode: str = "both",
) -> Tensor:
    """[P] losses; arguments as in ``functional.loss``. Tokens stand in order: ``position`` isn't needed."""
    pairs = len(length) // 2
    losses = []
    for pair in range(pairs):
        chosen = [i for i in range(len(segment)) if int(segment[i]) == pair]
        rejected = [i for i in range(len(segment)) if int(segment[i]) == pairs + pair]
        public_length = min(len(chosen), len(rejected))
        ref_alpha = alpha if ref_mode == "both" else 1.0
        margin = torch.zeros((), dtype=logps.dtype)
        for sign, tokens in ((+1, chosen), (-1, rejected)):
            policy_score = _modified_log_likelihood(logps, tokens, public_length, alpha)
            reference_score = _modified_log_likelihood(reference, tokens, public_length, ref_alpha)
            margin = margin + sign * beta * (policy_score - reference_score)
        losses.append(-torch.log(torch.sigmoid(margin)))
    return torch.stack(losses) if losses else logps.new_zeros(0)


def _modified_log_likelihood(logps: Tensor, tokens: list[int], public_length: int, alpha: float) -> Tensor:
    """Log of: p(all tokens)^alpha times p(the first ``public_length`` tokens)^(1 - alpha)."""
    total = torch.zeros((), dtype=logps.dtype)
    for i in tokens:
        total = total + alpha * logps[i]
    for i in tokens[:public_length]:
        total = total + (1 - alpha) * logps[i]
    return total
