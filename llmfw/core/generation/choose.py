"""From logits to tokens: temperature, then top-k, then top-p, then one uniform number through the inverse
of the cumulated distribution.

Shapes: R rows, V vocabulary, K candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST_LOOK = 1024
"""Candidates sorted before the whole vocabulary is: they hold nearly every nucleus and cost far less."""


def distribution(
    logits: Tensor, *, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """Probabilities that ``pick`` draws from.

    Args:
        logits: [R, V] float32.
        temperature: above 0.

    Returns:
        ([R, V] probabilities, None), or, where top_k or top_p leaves tokens out, ([R, K] probabilities in
        falling order, renormalised over the kept tokens, 0 for the others; [R, K] their ids).
    """
    vocabulary = logits.shape[-1]
    scaled = logits / temperature
    if (top_k == 0 or top_k >= vocabulary) and top_p >= 1:
        return torch.softmax(scaled, dim=-1), None
    if 0 < top_k < vocabulary:
        values, ids = scaled.topk(top_k, dim=-1)
        probabilities = torch.softmax(values, dim=-1)  # top_p counts what top_k has left, as in transformers
    else:
        probabilities, ids = _nucleus_candidates(torch.softmax(scaled, dim=-1), top_p)
    if top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        # a token stays while the mass before it is below top_p; the first one always does
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return probabilities / probabilities.sum(-1, keepdim=True), ids


def _nucleus_candidates(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    count = min(_FIRST_LOOK, probabilities.shape[-1])
    values, ids = probabilities.topk(count, dim=-1)
    if count < probabilities.shape[-1] and bool((values.sum(-1) < top_p).any()):
        values, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    return values, ids


def pick(probabilities: Tensor, ids: Tensor | None, uniform: Tensor) -> Tensor:
    """The token at which the cumulated probability first exceeds ``uniform``.

    Args:
        probabilities, ids: as ``distribution`` returns them.
        uniform: [R] float64 in [0, 1).

    Returns:
        [R] int64 token ids.
    """
    # float64: over 50,000 tokens a float32 running sum is off by more than the probability of a rare token
    cumulated = probabilities.double().cumsum(-1)
    threshold = uniform.to(cumulated)[:, None] * cumulated[:, -1:]
    index = torch.searchsorted(cumulated, threshold, right=True)
    # rounding may carry the threshold to the total itself: the answer is then the last token with any mass
    rank = torch.arange(probabilities.shape[-1], device=probabilities.device)
    last = (probabilities > 0).long().mul(rank).amax(-1)
    index = torch.minimum(index[:, 0], last)
    return index if ids is None else ids.gather(-1, index[:, None])[:, 0]


def uniforms(seeds: list[int], count: int) -> Tensor:
    """[R, count] float64 in [0, 1): row r holds the first numbers of its own generator, seeded ``seeds[r]``.

    Its first numbers are the same whatever ``count`` is: an answer's start doesn't depend on max_new_tokens.
    """
    rows = torch.empty(len(seeds), count, dtype=torch.float64)
    generator = torch.Generator()
    for row, seed in enumerate(seeds):
        generator.manual_seed(seed)
        rows[row] = torch.rand(count, dtype=torch.float64, generator=generator)
    return rows
