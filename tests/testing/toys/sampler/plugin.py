"""Self-training in one round: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import Plugin, RolloutSampler, hookimpl


class Toy(Plugin):
    """One round: the given rows and the model's own answers to the first ``own`` of them."""

    @dataclass
    class Config:
        """Settings ``base_sampler.*``."""

        own: int = field(
            default=2, metadata={"help": "prompts that the model answers itself; 0: none", "minimum": 0}
        )

    config: Config

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """One round."""
        from .sampler import next_round

        return RolloutSampler(name="base_sampler", next=partial(next_round, own=self.config.own))
