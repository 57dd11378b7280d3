"""How likely a policy finds given answers.

Shapes: N trained tokens of a batch, S segments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llmfw.core.data import Example, collate
from llmfw.core.errors import NumericsError
from llmfw.core.generation.engine import evaluating


@dataclass(frozen=True, kw_only=True)
class AnswerScore:
    """Log-probability of one answer: the sum over its trained tokens (end of turn included), in nats."""

    logp: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token; 0 for an answer without trained tokens."""
        return self.logp / self.tokens if self.tokens else 0.0


def score_examples(
    policy: Any, examples: Sequence[Example], *, pad_id: int = 0, batch_size: int = 8
) -> list[tuple[AnswerScore, ...]]:
    """For each example, in order, the score of each of its sequences (chosen and rejected of a preference).

    Computed without gradients and dropout, in batches of like length; a score doesn't depend on its batch but
    for rounding.

    Raises:
        NumericsError: a log-probability that isn't finite.
    """
    scores: list[tuple[AnswerScore, ...]] = [()] * len(examples)
    device = next(policy.module.parameters()).device
    order = sorted(range(len(examples)), key=lambda index: (examples[index].kind, -examples[index].length))
    with evaluating(policy.module), torch.inference_mode():
        for batch_indices in _batches(order, examples, batch_size):
            batch = collate([examples[index] for index in batch_indices], pad_id).to(device)
            logps = policy.logps(batch).double()
            zeros = torch.zeros(batch.segments, dtype=torch.float64, device=device)
            sums = zeros.index_add(0, batch.segment, logps).tolist()
            if not all(math.isfinite(total) for total in sums):
                raise NumericsError(
                    "SCORE-NAN",
                    f"an answer's log-probability isn't finite (samples {', '.join(batch.sample_ids)})",
                    mend="look at the training's loss and gradient norms, or set model.dtype=float32",
                    key="model",
                )
            lengths = batch.length.tolist()
            # segments are ordered side by side: first every example's first sequence, then every second one
            for place, index in enumerate(batch_indices):
                sides = range(place, len(sums), len(batch_indices))
                scores[index] = tuple(AnswerScore(logp=sums[side], tokens=lengths[side]) for side in sides)
    return scores


def _batches(order: Sequence[int], examples: Sequence[Example], size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for index in order:
        last = batches[-1] if batches else []
        if not last or len(last) == size or examples[last[0]].kind != examples[index].kind:
            batches.append([index])
        else:
            last.append(index)
    return batches
