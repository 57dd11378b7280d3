"""A rater: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import Plugin, Service, hookimpl


class Toy(Plugin):
    """Rates a text by its length."""

    @dataclass
    class Config:
        """Settings ``base_service.*``."""

        unit: int = field(default=10, metadata={"help": "characters of one point", "minimum": 1})

    config: Config

    @hookimpl
    def llmfw_services(self, run: Any) -> Sequence[Service]:
        """One rater."""
        from .rater import Length

        return [Service(protocol="Rater", name="base_service", factory=partial(Length, self.config.unit))]
