"""Settings and hooks: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import Plugin, Service, hookimpl

from .verifier import LastNumber


class MyMethod(Plugin):
    """Offers a verifier; a sampler or an evaluation asks for it with ``services("AnswerVerifier")``."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        tolerance: float = field(
            default=1e-6,
            metadata={
                "help": "relative difference that still counts as equal",
                "minimum": 0.0,
                "maximum": 1.0,
            },
        )

    config: Config

    @hookimpl
    def llmfw_services(self, run: Any) -> Sequence[Service]:
        """Built on first use, then shared."""
        factory = partial(LastNumber, self.config.tolerance)
        return [Service(protocol="AnswerVerifier", name="my_method", factory=factory)]
