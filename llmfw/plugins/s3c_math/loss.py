"""Cross entropy of the trained tokens as a mean over sequences. Shapes: N trained tokens, S sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .functional import loss

if TYPE_CHECKING:
    from llmfw import Batch, LossOutput


def by_sequence(policy: Any, batch: Batch, reference: Any) -> LossOutput:
    """The sum over sequences of minus the mean log-prob of their trained tokens, in nats; the core divides by
    the step's sequences.
    """
    from llmfw import LossOutput

    return LossOutput(total=loss(policy.logps(batch), batch.segment, batch.length))
