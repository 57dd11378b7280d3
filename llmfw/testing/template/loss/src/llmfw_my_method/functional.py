"""The method: a link that reckons with wrong labels. Pure torch; the layout of a batch is unknown here.

Shapes: N trained tokens, S segments (completions), P pairs (``llmfw.losses.preference``).
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from llmfw.losses import preference
from llmfw.losses.preference import Objective


def link(difference: Tensor, gap: Tensor, *, beta: float, flipped: float) -> Tensor:
    """[P] expected loss of pairs whose label is wrong with probability ``flipped``.

    difference: [P] chosen minus rejected score, nats; gap: [P] chosen minus rejected length, not used here.
    """
    reward = beta * difference
    return -((1 - flipped) * F.logsigmoid(reward) + flipped * F.logsigmoid(-reward))


def objective(*, beta: float = 0.1, flipped: float = 0.1) -> Objective:
    """The loss, as ``llmfw.losses.preference`` takes it.

    Raises:
        UsageError: a setting outside its range.
    """
    preference.check_setting("flipped", flipped, low=0.0, high=0.5)
    return Objective(beta=beta, link=partial(link, beta=beta, flipped=flipped))


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
    """[P] losses from [N] log-probs of policy and reference, in nats: the form that the oracle has."""
    return preference.pair_losses(
        objective(beta=beta, flipped=flipped),
        logps,
        reference,
        segment=segment,
        position=position,
        length=length,
    )
