"""The slow oracle: schedules written out term by term; it shares no code with ``functional.py``."""

from __future__ import annotations


def lines_shown(attempt: int, lines: int) -> int:
    """Walk the schedule: after each failed attempt one line more, twice at the most, then from the start."""
    walk = [*range(1, lines), lines - 1]
    shown = 0
    for step in range(attempt):
        shown = walk[step % len(walk)]
    return shown


def share_shown(attempt: int) -> float:
    """Two tenths more after each failed attempt, up to eight, eight twice, then from the start."""
    tenths, repeats = 0, 0
    for _ in range(attempt):
        if tenths == 8 and repeats:
            tenths, repeats = 2, 0
        elif tenths == 8:
            repeats = 1
        else:
            tenths += 2
    return tenths / 10


def needs_guidance(p: float, samples: int, wanted: int) -> float:
    """P[Bin(samples, p) < wanted], summed over outcomes one by one."""
    total = 0.0
    for outcome in range(2**samples):
        hits = outcome.bit_count()
        if hits < wanted:
            total += p**hits * (1 - p) ** (samples - hits)
    return total
