"""How a round's records lie over the problems and their levels: coverage, evenness, shares of the tail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmfw.core.records import Row


def spread(
    rows: Sequence[Row], records: Sequence[Row]
) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
    """(numbers, tables) about those ``records`` that name the row that they answer (``problem``); two empty
    mappings where none does. ``unnamed``: how many name none, or one that isn't there, if any.

    ``coverage``: share of the problems with a record. ``gini`` of the records per problem, the uncovered ones
    too: 0 where all have equally many. ``level/L/share`` of the records and ``level/L/coverage``, where rows
    have levels; ``level/distance``: L1 distance of the records' shares to those of the problems, 0 to 2.
    Table ``kept``: how many problems have 0, 1, 2 ... records, by level.
    """
    of_row = {str(row.get("id", place)): str(row.get("level", "")) for place, row in enumerate(rows)}
    said = [str(record["problem"]) for record in records if record.get("problem") is not None]
    named = [name for name in said if name in of_row]
    if not named:
        return {}, {}
    counts = Counter(named)
    kept = [counts[name] for name in of_row]
    numbers: dict[str, float] = {
        "records": len(records),
        "problems": len(counts),
        "coverage": len(counts) / len(of_row),
        "gini": gini(kept),
    }
    if len(named) < len(records):
        numbers["unnamed"] = len(records) - len(named)
    levels = sorted(set(of_row.values()), key=_number_first)
    if levels != [""]:
        distance = 0.0
        for level in levels:
            own = [name for name in of_row if of_row[name] == level]
            share = sum(counts[name] for name in own) / len(named)
            numbers[f"level/{level}/share"] = share
            numbers[f"level/{level}/coverage"] = sum(name in counts for name in own) / len(own)
            distance += abs(share - len(own) / len(of_row))
        numbers["level/distance"] = distance
    table = Counter((of_row[name], counts[name]) for name in of_row)
    lines = [
        {"level": level, "records": count, "problems": problems}
        for (level, count), problems in sorted(
            table.items(), key=lambda item: (_number_first(item[0][0]), item[0][1])
        )
    ]
    return numbers, {"kept": lines}


def gini(counts: Sequence[int]) -> float:
    """Gini coefficient of counts, in [0, 1): sum of |a - b| over all ordered pairs / (2 n sum); 0 of nothing.

    With the counts ascending, x_1 to x_n: (2 sum of i x_i) / (n sum of x_i) - (n + 1) / n.
    """
    total, n = sum(counts), len(counts)
    if not total:
        return 0.0
    weighted = sum(place * count for place, count in enumerate(sorted(counts), start=1))
    return 2 * weighted / (n * total) - (n + 1) / n


def _number_first(level: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    try:
        return 0, float(level), level
    except ValueError:
        return 1, 0.0, level
