"""LD-DPO (arXiv 2409.06411, eq. 9 to 12): one weight per token, the rest is DPO.

Shapes: N trained tokens, S segments, P pairs (``llmfw.losses.preference``).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from llmfw.losses import preference
from llmfw.losses.preference import Objective


def weights(position: Tensor, length: Tensor, partner_length: Tensor, *, alpha: float) -> Tensor:
    """[N] 1 for a token within the shorter side's length, alpha beyond it.

    position: 1-based within the completion; length, partner_length: of the token's own completion and of the
    other side; all [N] int64. Then R(y) = sum of weight * log-prob = A(y) + alpha * T(y), eq. 12.
    """
    return preference.choose(position <= torch.minimum(length, partner_length), 1.0, alpha)


def objective(*, alpha: float, beta: float, ref_mode: str = "both") -> Objective:
    """-log sigmoid(beta * ((R - R_ref)(chosen) - (R - R_ref)(rejected))).

    R_ref is the reference's R where ``ref_mode`` is both, its plain sum where it's policy_only.

    Raises:
        UsageError: a setting outside its range.
    """
    preference.check_setting("alpha", alpha, low=0.0, high=1.0)
    preference.check_choice("ref_mode", ref_mode, ("both", "policy_only"))
    return Objective(
        beta=beta,
        link=partial(preference.sigmoid, beta=beta),
        weights=partial(weights, alpha=alpha),
        reference_weights=None if ref_mode == "both" else preference.every_token,
    )


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
    """[P] losses from [N] log-probs of policy and reference, in nats."""
    return preference.pair_losses(
        objective(alpha=alpha, beta=beta, ref_mode=ref_mode),
        logps,
        reference,
        segment=segment,
        position=position,
        length=length,
    )
