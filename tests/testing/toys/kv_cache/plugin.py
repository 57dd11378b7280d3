"""A cache with a budget: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import CacheFactory, Plugin, hookimpl


class Toy(Plugin):
    """Of a prompt's entries only ``budget`` is kept: the first two and the latest."""

    @dataclass
    class Config:
        """Settings ``base_kv_cache.*``."""

        budget: float = field(
            default=0.25,
            metadata={
                "help": "share of a prompt's entries that is kept; 1: all",
                "minimum": 0.05,
                "maximum": 1.0,
            },
        )

    config: Config

    @hookimpl
    def llmfw_kv_cache(self, run: Any, model_config: Any) -> CacheFactory:
        """The cache, and the moment of its eviction."""
        from .cache import attention, build, evict
        from .functional import kept

        share, layers = self.config.budget, model_config.num_hidden_layers

        return CacheFactory(
            name="base_kv_cache",
            build=build,
            attention=("base_kv_cache", attention),
            after_prefill=partial(evict, budget=share),
            batched=True,
            budget=lambda prompt, new: layers * (len(kept(prompt, budget=share)) + new),
        )
