"""Where the rows come from."""

from __future__ import annotations

from llmfw import DataModule, Row


class Sums(DataModule):
    """Each pair of numbers below ``limit`` once; the last ones are held out."""

    kind = "completion"

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def rows(self, split: str) -> list[Row]:
        """Rows of a split."""
        every = [
            {"id": f"{a}+{b}", "prompt": f"{a}+{b}=", "completion": str(a + b)}
            for a in range(self.limit)
            for b in range(self.limit)
        ]
        return every[:-2] if split == "train" else every[-2:]
