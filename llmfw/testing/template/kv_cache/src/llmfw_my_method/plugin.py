"""Settings and hooks: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmfw import CacheFactory, Plugin, hookimpl


class MyMethod(Plugin):
    """A key-value cache of bounded size."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        sinks: int = field(default=4, metadata={"help": "first tokens that are always kept", "minimum": 0})
        recent: int = field(default=252, metadata={"help": "most recent tokens that are kept", "minimum": 1})
        chunk: int = field(
            default=0, metadata={"help": "prompt tokens read per forward pass; 0: all at once", "minimum": 0}
        )

    config: Config

    @hookimpl
    def llmfw_kv_cache(self, run: Any, model_config: Any) -> CacheFactory:
        """One cache for prompts of equal length; rows don't touch each other."""
        return CacheFactory(
            name="my_method", build=self.build, prefill_chunk=self.config.chunk or None, batched=True
        )

    def build(self, model_config: Any) -> Any:
        """An empty cache."""
        from .cache import build

        return build(model_config, sinks=self.config.sinks, recent=self.config.recent)
