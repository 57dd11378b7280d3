"""Settings, hooks, and the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmfw import DataModule, Plugin, Row, hookimpl

from .functional import sums


class Sums(DataModule):
    """Rows with a prompt and its completion; templates, masks and batches are the core's."""

    kind: ClassVar[str | None] = "completion"

    def __init__(self, *, count: int, digits: int, held_out: float, seed: int) -> None:
        self._settings: dict[str, Any] = {"digits": digits, "seed": seed, "share": held_out}
        self._counts = {"train": count, "validation": max(1, round(count * held_out))}

    def rows(self, split: str) -> Iterator[Row]:
        """Made when asked for, the same every time."""
        for left, right in sums(self._counts[split], side=split, **self._settings):
            yield {
                "id": f"{left}+{right}",
                "prompt": f"{left} + {right} =",
                "completion": f" {left + right}",
            }

    def recipe(self) -> Mapping[str, Any]:
        """What the report says about the rows."""
        return dict(self._settings)


class MyMethod(Plugin):
    """Sums of numbers of a few digits."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        count: int = field(default=2000, metadata={"help": "training rows, at most", "minimum": 2})
        digits: int = field(
            default=2, metadata={"help": "digits of the numbers, at most", "minimum": 1, "maximum": 9}
        )
        held_out: float = field(
            default=0.1,
            metadata={"help": "share of all sums that is held out", "minimum": 0.01, "maximum": 0.9},
        )

    config: Config

    @hookimpl
    def llmfw_datamodule(self, run: Any, tokenizer: Any) -> DataModule:
        """The source of rows."""
        settings = self.config
        return Sums(count=settings.count, digits=settings.digits, held_out=settings.held_out, seed=run.seed)
