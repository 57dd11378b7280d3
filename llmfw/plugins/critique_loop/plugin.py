"""Critique in the loop (arXiv 2411.16579): wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmfw import Evaluation, Plugin, RolloutSampler, hookimpl

from .settings import CritiqueLoopConfig


class CritiqueLoop(Plugin):
    """Rounds of self-training in which a critic criticises wrong answers and the actor refines them."""

    @dataclass
    class Config(CritiqueLoopConfig):
        """Settings ``critique_loop.*``."""

    config: Config

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """Solutions, annotated refinements, the critic; then rounds until ``critique_loop.rounds`` of them
        are trained.
        """
        from .sampler import critique_loop

        return RolloutSampler(name="critique_loop", next=critique_loop(self.config, run))

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Held-out problems solved, by level; criticised and refined; how well the critic finds errors."""
        from .evaluations import evaluations

        return evaluations(self.config, run)
