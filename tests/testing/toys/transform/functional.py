"""Which rows are kept, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmfw import Row, Transformed


def size(row: Row) -> int:
    """Characters of a row's texts."""
    return sum(len(text) for key, text in row.items() if isinstance(text, str) and key not in ("id", "_at"))


def shortest(rows: list[Row], *, keep: float) -> Transformed:
    """The ``keep`` share of the rows with the fewest characters, at least one, in their order."""
    count = max(1, round(keep * len(rows)))
    chosen = sorted(sorted(range(len(rows)), key=lambda index: (size(rows[index]), index))[:count])
    return Transformed(items=[rows[index] for index in chosen], metrics={"kept": float(count)})


def order(examples: Sequence[Any], epoch: int) -> list[int]:
    """Indices, the shortest first."""
    return sorted(range(len(examples)), key=lambda index: (examples[index].length, index))
