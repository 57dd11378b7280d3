"""Direct preference optimisation and its relatives: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Evaluation, Loss, NamedMetric, Plugin, hookimpl
from llmfw.callbacks.preference import answer_length, pair_metrics


class Dpo(Plugin):
    """A preference loss, its measurements on held-out pairs, and the length of the policy's own answers."""

    @dataclass
    class Config:
        """Settings ``dpo.*``."""

        loss: str = field(
            default="sigmoid",
            metadata={
                "help": "sigmoid: DPO itself; the others are relatives",
                "choices": ("sigmoid", "ipo", "r_dpo", "simpo", "sampo"),
            },
        )
        beta: float = field(
            default=0.1,
            metadata={"help": "strength of the pull to the reference. simpo: 2.0 is usual", "minimum": 1e-6},
        )
        bonus: float = field(
            default=0.05,
            metadata={"help": "r_dpo only: margin per token by which the chosen answer is longer"},
        )
        gamma: float = field(default=1.0, metadata={"help": "simpo only: margin that is aimed at"})
        answers: int = field(
            default=16,
            metadata={
                "help": "held-out prompts answered before and after training; 0: none",
                "minimum": 0,
            },
        )

    config: Config

    @hookimpl
    def llmfw_loss(self, run: Any, tokenizer: Any, model_config: Any) -> Loss:
        """The chosen loss over pairs."""
        from llmfw.losses.preference import preference_loss

        from .functional import objective

        c = self.config
        chosen = objective(c.loss, beta=c.beta, bonus=c.bonus, gamma=c.gamma, seed=run.seed)
        return Loss(
            name=f"dpo.{c.loss}",
            call=preference_loss(chosen),
            batch_kind="preference",
            unit="pairs",
            needs_reference=chosen.reference,
        )

    @hookimpl
    def llmfw_metrics(self, run: Any, stage: Any) -> Sequence[NamedMetric]:
        """Intervals of held-out margin and accuracy; correlation of length gap and margin."""
        return pair_metrics(stage)

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Length of the policy's answers."""
        return [answer_length(run.rows, self.config.answers)] if self.config.answers > 0 else []
