"""The shortest rows, shortest first: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import DatasetTransform, Plugin, hookimpl


class Toy(Plugin):
    """Keeps a share of the rows, the shortest ones, and trains the shortest first."""

    @dataclass
    class Config:
        """Settings ``base_transform.*``."""

        keep: float = field(
            default=0.5, metadata={"help": "share of the rows that is kept", "minimum": 0.1, "maximum": 1.0}
        )
        sort: bool = field(
            default=True, metadata={"help": "train the shortest first; false: the core's order"}
        )

    config: Config

    @hookimpl
    def llmfw_dataset_transforms(self, run: Any, tokenizer: Any) -> Sequence[DatasetTransform]:
        """Which rows, and their order."""
        from .functional import order, shortest

        kept = DatasetTransform(name="shortest", stage="rows", apply=partial(shortest, keep=self.config.keep))
        sorted_ = DatasetTransform(name="shortest_first", stage="order", apply=order)
        return [kept, sorted_] if self.config.sort else [kept]
