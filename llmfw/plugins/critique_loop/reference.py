"""The slow oracle: the same numbers by walking through characters and outcomes; it shares no code with
``functional.py``.
"""

from __future__ import annotations


def digit_runs(text: str) -> int:
    """Count the characters that are digits behind one that isn't."""
    count = 0
    before = False
    for character in text:
        digit = character in "0123456789"
        if digit and not before:
            count += 1
        before = digit
    return count


def expected_generations(samples: int, p: float) -> float:
    """Over each outcome of the samples: every sample, and a critique and N refinements of every wrong one."""
    total = 0.0
    for outcome in range(2**samples):
        right = outcome.bit_count()
        chance = p**right * (1 - p) ** (samples - right)
        calls = 0
        for sample in range(samples):
            calls += 1
            if not outcome >> sample & 1:
                calls += 1
                for _ in range(samples):
                    calls += 1
        total += chance * calls
    return total


def kept_chance(samples: int, q: float, least: int) -> float:
    """P[Bin(N, q) >= k], summed over outcomes one by one."""
    total = 0.0
    for outcome in range(2**samples):
        right = outcome.bit_count()
        if right >= least:
            total += q**right * (1 - q) ** (samples - right)
    return total
