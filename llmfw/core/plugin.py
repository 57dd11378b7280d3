"""The base class of plugins: an instance built with its own validated config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


class Plugin:
    """Derive, give a ``Config`` dataclass, and answer hooks with methods marked ``@llmfw.hookimpl``.

    Private notes are attributes of the instance; anything shared goes through records and services.

        class Mine(Plugin):
            @dataclass
            class Config:
                alpha: float = 0.5

            @hookimpl
            def llmfw_loss(self, run, tokenizer, model_config): ...
    """

    @dataclass
    class Config:
        """No settings."""

    neutral: ClassVar[dict[str, Any] | None] = None
    """Settings at which the plugin equals its baseline, for plugins without a card."""

    def __init__(self, config: Any) -> None:
        self.config = config
