"""Greedy without repeats: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import Decoder, Plugin, hookimpl


class Toy(Plugin):
    """The likeliest token that isn't among the last ``window`` ones."""

    @dataclass
    class Config:
        """Settings ``base_decoder.*``."""

        window: int = field(
            default=4, metadata={"help": "latest tokens that don't come again; 0: greedy", "minimum": 0}
        )

    config: Config

    @hookimpl
    def llmfw_decoder(self, run: Any, model_config: Any) -> Decoder:
        """The decoder."""
        from .decoder import decode

        return Decoder(
            name="base_decoder",
            generate=partial(decode, window=self.config.window),
            refuses=("custom_cache",),
        )
