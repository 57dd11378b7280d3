"""Settings and hooks: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmfw import Decoder, Plugin, hookimpl


class MyMethod(Plugin):
    """Prompt lookup decoding."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        length: int = field(
            default=8,
            metadata={"help": "tokens that are guessed at once, at most; 0: one by one", "minimum": 0},
        )
        ngram: int = field(default=3, metadata={"help": "tokens that must match, at most", "minimum": 1})

    config: Config

    @hookimpl
    def llmfw_decoder(self, run: Any, model_config: Any) -> Decoder:
        """Crops the cache, so no plugin's own cache goes with it."""
        return Decoder(name="my_method", generate=self.generate, refuses=("custom_cache",))

    def generate(self, policy: Any, input_ids: Any, sampling: Any, cache: Any) -> list[int]:
        """The new tokens of one prompt."""
        from .decoder import generate

        settings = self.config
        return generate(policy, input_ids, sampling, cache, ngram=settings.ngram, length=settings.length)
