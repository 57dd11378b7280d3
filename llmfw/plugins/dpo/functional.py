"""The losses that ``dpo.loss`` chooses from.

Shapes: N trained tokens, S segments, P pairs (``llmfw.losses.preference``).
"""

from __future__ import annotations

from torch import Tensor

from llmfw.losses import preference
from llmfw.losses.preference import Objective


def objective(name: str, *, beta: float, bonus: float = 0.05, gamma: float = 1.0, seed: int = 0) -> Objective:
    """The loss called ``name``: sigmoid, ipo, r_dpo (bonus), simpo (gamma) or sampo (seed).

    Raises:
        UsageError: another name, or a setting outside its range.
    """
    preference.check_choice("loss", name, ("sigmoid", "ipo", "r_dpo", "simpo", "sampo"))
    return {
        "sigmoid": lambda: preference.dpo(beta=beta),
        "ipo": lambda: preference.identity_po(beta=beta),
        "r_dpo": lambda: preference.r_dpo(beta=beta, bonus=bonus),
        "simpo": lambda: preference.simpo(beta=beta, gamma=gamma),
        "sampo": lambda: preference.sampo(beta=beta, seed=seed),
    }[name]()


def loss(
    logps: Tensor,
    reference: Tensor,
    *,
    segment: Tensor,
    position: Tensor,
    length: Tensor,
    name: str = "sigmoid",
    beta: float = 0.1,
    bonus: float = 0.05,
    gamma: float = 1.0,
) -> Tensor:
    """[P] losses from [N] log-probs in nats. For sampo ``position`` is a token's place in a random order."""
    return preference.pair_losses(
        objective(name, beta=beta, bonus=bonus, gamma=gamma),
        logps,
        reference,
        segment=segment,
        position=position,
        length=length,
    )
