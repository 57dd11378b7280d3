"""One weight a token; the rest is DPO. Shapes: N trained tokens, P pairs."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from llmfw.losses import preference
from llmfw.losses.preference import Objective


def weights(position: Tensor, length: Tensor, partner_length: Tensor, *, early: float) -> Tensor:
    """[N] ``early`` for the first two tokens of an answer, 1 for the others."""
    return preference.choose(position <= 2, early, 1.0)


def objective(*, early: float, beta: float) -> Objective:
    """-log sigmoid(beta * margin) of the weighted sums."""
    preference.check_setting("early", early, low=0.0)
    return Objective(
        beta=beta, link=partial(preference.sigmoid, beta=beta), weights=partial(weights, early=early)
    )


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
    """[P] losses from [N] log-probs of policy and reference, in nats."""
    chosen = objective(early=early, beta=beta)
    return preference.pair_losses(chosen, logps, reference, segment=segment, position=position, length=length)
