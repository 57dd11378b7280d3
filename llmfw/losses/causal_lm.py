"""The default loss: cross entropy of the trained tokens. Shapes: N trained tokens."""

from __future__ import annotations

from torch import Tensor


def cross_entropy(logps: Tensor) -> Tensor:
    """Minus the **sum** of the [N] log-probs, in nats; the core divides by the step's tokens.

    Zero, with a gradient of zero, where N is 0. There is no auxiliary term (no z-loss).
    """
    return -logps.sum()
