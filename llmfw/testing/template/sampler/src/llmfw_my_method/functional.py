"""The method: which problems are sampled, and which of the sampled answers is the best. Plain Python."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence


def chosen(key: str, share: float) -> bool:
    """Whether a problem is sampled: a fixed ``share`` of all keys, the same in every run."""
    drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return drawn < share


def score(answer: str, expected: str) -> float:
    """The verifier: F1 of the characters that the two share, from 0 to 1; an empty answer has 0.

    With s characters in common, counted with repetition: 2 s / (len(answer) + len(expected)).
    """
    shared = sum((Counter(answer) & Counter(expected)).values())
    return 2 * shared / max(1, len(answer) + len(expected))


def best(answers: Sequence[str], expected: str) -> int | None:
    """Index of the answer with the highest score, the first of equals; None: all are blank."""
    told = [index for index, answer in enumerate(answers) if answer.strip()]
    return max(told, key=lambda index: (score(answers[index], expected), -index), default=None)
