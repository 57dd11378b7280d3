"""Greedy with guesses: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import Decoder, Plugin, hookimpl


class Toy(Plugin):
    """Greedy; what followed a token before is guessed and judged in the same forward pass."""

    @dataclass
    class Config:
        """Settings ``base_decoder.*``."""

        draft: int = field(
            default=3, metadata={"help": "tokens that are guessed; 0: one by one", "minimum": 0}
        )

    config: Config

    @hookimpl
    def llmfw_decoder(self, run: Any, model_config: Any) -> Decoder:
        """The decoder."""
        from .decoder import decode

        return Decoder(
            name="base_decoder",
            generate=partial(decode, draft=self.config.draft),
            refuses=("custom_cache",),
        )
