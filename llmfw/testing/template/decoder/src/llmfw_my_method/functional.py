"""The method: where a guess comes from, and how much of it is right. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence


def guess(tokens: Sequence[int], *, ngram: int, length: int) -> list[int]:
    """At most ``length`` tokens that followed the latest earlier place where the last tokens stand.

    The longest match counts: the last ``ngram`` tokens, else one fewer, down to one; of equal matches the
    latest. Empty where nothing matches, or ``length`` is 0.
    """
    end = len(tokens)
    for width in range(min(ngram, end - 1), 0, -1):
        last = list(tokens[end - width :])
        for start in range(end - width - 1, -1, -1):
            if list(tokens[start : start + width]) == last:
                return list(tokens[start + width : start + width + length])
    return []


def accepted(guessed: Sequence[int], chosen: Sequence[int]) -> int:
    """How many guessed tokens are the model's own choices, up to the first that isn't."""
    for count, (ours, models) in enumerate(zip(guessed, chosen)):
        if ours != models:
            return count
    return min(len(guessed), len(chosen))
