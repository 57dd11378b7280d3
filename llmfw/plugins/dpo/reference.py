"""The slow oracle: each loss written out pair by pair and token by token, as its paper prints it."""

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
    name: str = "sigmoid",
    beta: float = 0.1,
    bonus: float = 0.05,
    gamma: float = 1.0,
) -> Tensor:
    """[P] losses; arguments as in ``functional.loss``."""
    pairs = len(length) // 2
    zero, losses = 0.0 * logps.sum(), []
    for pair in range(pairs):
        w = _tokens(logps, segment, position, pair)
        l = _tokens(logps, segment, position, pairs + pair)  # noqa: E741  # y_w and y_l, as all these papers write
        ref_w = _tokens(reference, segment, position, pair)
        ref_l = _tokens(reference, segment, position, pairs + pair)
        if name == "sigmoid":  # arXiv 2305.18290
            ratio_w = beta * (_total(w) - _total(ref_w))
            ratio_l = beta * (_total(l) - _total(ref_l))
            losses.append(_minus_log_sigmoid(ratio_w - ratio_l))
        elif name == "ipo":  # arXiv 2310.12036, with log-probs averaged over tokens
            h = (_mean(w) - _mean(ref_w)) - (_mean(l) - _mean(ref_l))
            losses.append((h - 1 / (2 * beta)) ** 2)
        elif name == "r_dpo":  # arXiv 2403.19159
            m = beta * (_total(w) - _total(ref_w)) - beta * (_total(l) - _total(ref_l))
            losses.append(_minus_log_sigmoid(m + (bonus * len(w) - bonus * len(l))))
        elif name == "simpo":  # arXiv 2405.14734
            losses.append(_minus_log_sigmoid(beta * _mean(w) - beta * _mean(l) - gamma))
        elif name == "sampo":  # arXiv 2406.10957: of the longer side as many tokens as the shorter one has
            m = zero
            for t in range(1, min(len(w), len(l)) + 1):
                m = m + beta * (w[t] - ref_w[t]) - beta * (l[t] - ref_l[t])
            losses.append(_minus_log_sigmoid(m))
    return torch.stack(losses) if losses else logps.new_zeros(0)


def _tokens(values: Tensor, segment: Tensor, position: Tensor, wanted: int) -> dict[int, Tensor]:
    """The values of one completion by position."""
    return {int(position[i]): values[i] for i in range(len(values)) if int(segment[i]) == wanted}


def _total(values: dict[int, Tensor]) -> Tensor:
    return torch.stack(list(values.values())).sum() if values else torch.zeros(())


def _mean(values: dict[int, Tensor]) -> Tensor:
    return _total(values) / max(1, len(values))


def _minus_log_sigmoid(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(-x)) if x > -30 else -x
