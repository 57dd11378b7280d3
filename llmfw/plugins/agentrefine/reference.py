"""The slow oracle, written from the formula of arXiv 2501.01702; it shares no code with ``functional.py``.

    L = - sum over turns i of c_i [ log p(T_i | h_i) + log p(A_i | h_i, T_i) ]

T_i and A_i are thought and action of turn i, h_i what stands before them. Divided by the number of tokens of
the turns with c_i = 1 in the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def right(errors: Sequence[Sequence[bool]]) -> list[int]:
    """c_i of each player's turn from the (parameter, place, logic) flags of the turn that follows it."""
    found = []
    for parameter, place, logic in errors:
        wrong = parameter or place or logic
        found.append(0 if wrong else 1)
    return found


def weights(errors: Sequence[Sequence[bool]], arm: str) -> list[int]:
    """1 for each turn whose labels are trained, by the table of ablations, case by case."""
    c = right(errors)
    found = []
    for i in range(len(c)):
        after_error = i >= 1 and c[i - 1] == 0
        if arm == "erroneous_loss":
            weight = 1
        elif arm == "no_refinement_loss":
            weight = 0 if c[i] == 0 or after_error else 1
        else:
            weight = c[i]
        found.append(weight)
    return found


def loss(logps: Sequence[Tensor], errors: Sequence[Sequence[bool]], arm: str = "full") -> Tensor:
    """The sum over the trained turns of one dialogue; ``logps[i]``: [tokens of turn i] log-probs."""
    total = torch.zeros((), dtype=logps[0].dtype)
    for turn, weight in zip(logps, weights(errors, arm), strict=True):
        for value in turn:
            total = total - weight * value
    return total
