"""The slow oracle: masks and means written out one by one; it shares no code with the other modules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from torch import Tensor


def character_mask(segments: Sequence[tuple[str, str]]) -> list[bool]:
    """Of (kind, text) segments: whether each character is trained, then whether the end of the turn is."""
    found: list[bool] = []
    for kind, text in segments:
        found += [kind != "wrong"] * len(text)
    return [*found, found[-1]]


def masked_mean(nll: Sequence[float], mask: Sequence[int]) -> float:
    """The objective in plain numbers: the trained tokens' nats over their number, 0 of none."""
    total, count = 0.0, 0
    for value, trained in zip(nll, mask, strict=True):
        if trained:
            total += value
            count += 1
    return total / count if count else 0.0


def sequence_means(logps: Sequence[float], segment: Sequence[int], sequences: int) -> list[float]:
    """Each sequence's mean log-prob, 0 of none."""
    found = []
    for wanted in range(sequences):
        own = [value for value, place in zip(logps, segment, strict=True) if place == wanted]
        found.append(sum(own) / len(own) if own else 0.0)
    return found


def called_wrong(success: float, rollouts: int) -> float:
    """P[no roll-out is right], each right with chance ``success``: over all outcomes one by one."""
    total = 0.0
    for outcome in product((True, False), repeat=rollouts):
        if not any(outcome):
            chance = 1.0
            for hit in outcome:
                chance *= success if hit else 1 - success
            total += chance
    return total


def loss(logps: Tensor, segment: Tensor, length: Tensor) -> Tensor:
    """Minus the sequences' mean log-probs, sequence by sequence, token by token."""
    total = logps.sum() * 0
    for place in range(len(length)):
        own = [value for value, number in zip(logps, segment.tolist(), strict=True) if number == place]
        for value in own:
            total = total - value / len(own)
    return total
