"""The slow oracle: the score written out from its definition; it shares no code with ``functional.py``."""

from __future__ import annotations


def score(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall, characters crossed off one by one."""
    left, shared = list(expected), 0
    for character in answer:
        if character in left:
            left.remove(character)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(answer), shared / len(expected)
    return 2 * precision * recall / (precision + recall)
