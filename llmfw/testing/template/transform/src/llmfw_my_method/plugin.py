"""Settings and hooks: wiring only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import DatasetTransform, Plugin, Row, Transformed, hookimpl

from .functional import duplicates

SAID = ("prompt", "completion", "chosen", "rejected", "messages", "text", "solution", "answer")
"""Keys of a row that hold what it says."""


def text_of(row: Row) -> str:
    """Everything that a row says, as one text."""
    parts = [row[key] for key in SAID if key in row]
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in parts)


class MyMethod(Plugin):
    """Drops near-duplicates from the training rows."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        similarity: float = field(
            default=0.7,
            metadata={
                "help": "rows more similar than this to an earlier one are left out; 1: none is",
                "minimum": 0.0,
                "maximum": 1.0,
            },
        )

    config: Config

    @hookimpl
    def llmfw_dataset_transforms(self, run: Any, tokenizer: Any) -> Sequence[DatasetTransform]:
        """One step over the rows."""
        return [DatasetTransform(name="near_duplicates", stage="rows", apply=self.apply)]

    def apply(self, rows: Sequence[Row]) -> Transformed:
        """The rows that are kept, in their order; the table names each that isn't."""
        found = duplicates([text_of(row) for row in rows], above=self.config.similarity)
        gone = {duplicate.index for duplicate in found}
        return Transformed(
            items=[row for index, row in enumerate(rows) if index not in gone],
            metrics={"dropped": len(found), "share": len(found) / max(1, len(rows))},
            tables={
                "dropped": [
                    {"id": rows[d.index]["id"], "of": rows[d.of]["id"], "similarity": d.similarity}
                    for d in found
                ]
            },
        )
