"""The rounds of a run side by side: what each was made of, what it cost, what it brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_FIRST = (
    ("start", "from"),
    ("records", "records"),
    ("coverage", "coverage"),
    ("gini", "gini"),
    ("sampled/samples", "samples"),
    ("sampled/tokens", "tokens"),
    ("sampled/seconds", "seconds"),
    ("training loss", "loss"),
)
"""Keys of a round's line, and the columns they head; the others follow under their own names."""
_PARTS = ("low", "high", "n")


def rounds_table(rounds: Sequence[Mapping[str, float | str]]) -> Table:
    """A row for each number, a column for each round; numbers that no round has are left out."""
    from rich.table import Table

    from llmfw.verbs.fit import number

    table = Table(title=f"{len(rounds)} rounds", title_justify="left", show_edge=False)
    table.add_column("round", no_wrap=True)
    for line in rounds:
        table.add_column(str(int(float(line["round"]))), justify="right", no_wrap=True)
    known = dict(_FIRST)
    others = {
        key: key
        for line in rounds
        for key in line
        if key != "round" and key not in known and key.rsplit("/", 1)[-1] not in _PARTS
    }
    measured = [key for key in others if not key.startswith(("sampled/", "level/"))]
    levels = [key for key in others if key.startswith("level/")]
    for key in [*known, *levels, *measured]:
        if not any(key in line for line in rounds):
            continue
        cells = []
        for line in rounds:
            value = line.get(key, "")
            cells.append(value if isinstance(value, str) else number(value))
        table.add_row(known.get(key, key), *cells)
    return table
