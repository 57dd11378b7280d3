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

    config: Config

    @hookimpl
    def llmfw_kv_cache(self, run: Any, model_config: Any) -> CacheFactory:
        """One cache for prompts of equal length; rows don't touch each other."""
        most = self.config.sinks + self.config.recent
        layers = model_config.get_text_config().num_hidden_layers
        return CacheFactory(
            name="my_method",
            build=self.build,
            after_prefill=self.after_prefill,
            batched=True,
            budget=lambda prompt, new: layers * min(prompt + new, most),
        )

    def build(self, model_config: Any) -> Any:
        """An empty cache."""
        from .cache import build

        return build(model_config, sinks=self.config.sinks, recent=self.config.recent)

    def after_prefill(self, cache: Any) -> None:
        """Forget what the window has no room for."""
        from .cache import after_prefill

        after_prefill(cache)
