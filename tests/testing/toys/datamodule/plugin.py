"""Sums: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmfw import Plugin, hookimpl


class Toy(Plugin):
    """Rows of sums below ``limit``."""

    @dataclass
    class Config:
        """Settings ``base_datamodule.*``."""

        limit: int = field(
            default=4, metadata={"help": "sums of numbers below it", "minimum": 2, "maximum": 99}
        )

    config: Config

    @hookimpl
    def llmfw_datamodule(self, run: Any, tokenizer: Any) -> Any:
        """The sums."""
        from .rows import Sums

        return Sums(self.config.limit)
