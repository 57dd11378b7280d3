"""Guided self-improvement (arXiv 2411.00750): wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Evaluation, Plugin, RolloutSampler, hookimpl
from llmfw.callbacks.problems import solved
from llmfw.core.generation import SelfTrainingConfig


class Gsi(Plugin):
    """Rounds of self-training in which problems with too few right answers are asked again, with help."""

    @dataclass
    class Config(SelfTrainingConfig):
        """Settings ``gsi.*``."""

        strategy: str = field(
            default="state_reset",
            metadata={
                "help": "help that is given: state_reset begins the answer with a part of the gold solution; "
                "answer and rationale show the gold answer or solution; interactive has models.TEACHER "
                "explain the error; none asks again as before (brute force)",
                "choices": ("state_reset", "answer", "rationale", "interactive", "none"),
            },
        )
        min_correct: int = field(
            default=4, metadata={"help": "right answers wanted of a problem; 0: no help", "minimum": 0}
        )
        max_resample: int = field(
            default=8, metadata={"help": "most further attempts at a problem", "minimum": 0}
        )
        keep_at_most: int = field(
            default=0,
            metadata={"help": "most right answers that a round trains, drawn by lot; 0: all", "minimum": 0},
        )
        schedule: str = field(
            default="auto",
            metadata={
                "help": "what state_reset shows, more with each attempt: lines of the solution, or shares of "
                "its tokens; auto: lines where there are several",
                "choices": ("auto", "lines", "tokens"),
            },
        )
        mask_prefix: bool = field(
            default=False,
            metadata={"help": "don't train what state_reset has given (the paper's code trains it)"},
        )
        teacher: str = field(
            default="teacher", metadata={"help": "auxiliary model (models.NAME) that explains errors"}
        )

    config: Config

    @hookimpl
    def llmfw_sampler(self, run: Any) -> RolloutSampler:
        """Rounds until ``gsi.rounds`` of them are trained."""
        from .sampler import guided

        return RolloutSampler(name="gsi", next=guided(self.config, run))

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Held-out problems solved, by level."""
        return solved(self.config, run)
