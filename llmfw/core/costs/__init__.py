"""What a run costs: tokens, seconds, memory; and what each plugin's parts cost in it."""

from __future__ import annotations

from llmfw.core.costs.memory import Peak, peak_memory
from llmfw.core.costs.record import (
    FILE,
    PREFIXES,
    Cost,
    Part,
    mean_parts,
    parts_of,
    read_cost,
    series_of,
    total_of,
)
from llmfw.core.costs.spent import Spent

__all__ = [
    "FILE",
    "PREFIXES",
    "Cost",
    "Part",
    "Peak",
    "Spent",
    "mean_parts",
    "parts_of",
    "peak_memory",
    "read_cost",
    "series_of",
    "total_of",
]
