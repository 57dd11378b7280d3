"""Infinite numbers in configs (Mamba-2's ``time_step_limit``), as transformers writes them in json."""

from __future__ import annotations

import math
from typing import Any

_WORD = "__float__"


def spelt(value: Any) -> Any:
    """A config's value with infinities and NaN as ``{"__float__": "Infinity"}``, which json can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_WORD: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, dict):
        return {key: spelt(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [spelt(one) for one in value]
    return value


def unspelt(value: Any) -> Any:
    """What ``spelt`` was given; tuples come back as lists."""
    if isinstance(value, dict):
        if set(value) == {_WORD}:
            return float(value[_WORD])
        return {key: unspelt(one) for key, one in value.items()}
    if isinstance(value, list):
        return [unspelt(one) for one in value]
    return value
