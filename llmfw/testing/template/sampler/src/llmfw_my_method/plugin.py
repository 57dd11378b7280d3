"""Settings and hooks: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Plugin, RolloutSampler, Round, Row, hookimpl


class MyMethod(Plugin):
    """One round of training on the best of n sampled answers."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        samples: int = field(default=4, metadata={"help": "answers sampled per problem", "minimum": 1})
        share: float = field(
            default=0.5,
            metadata={
                "help": "share of the problems that are sampled; 0: train on the given answers",
                "minimum": 0.0,
                "maximum": 1.0,
            },
        )

    config: Config

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """One round; None ends the run."""
        seed, settings = run.seed, self.config

        def next_round(
            index: int, rows: Sequence[Row], policy: Any, services: Any, ledger: Any
        ) -> Round | None:
            from .sampler import best_of, sample_with

            if index == 1:
                return None
            return best_of(rows, sample_with(policy, ledger, seed, settings.samples), share=settings.share)

        return RolloutSampler(name="my_method", next=next_round)
