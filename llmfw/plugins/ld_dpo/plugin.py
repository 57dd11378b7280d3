"""Length-desensitised DPO (arXiv 2409.06411): wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Evaluation, Loss, NamedMetric, Plugin, hookimpl
from llmfw.callbacks.preference import answer_length, pair_metrics


class LdDpo(Plugin):
    """DPO in which the longer answer's tail, beyond the shorter answer's length, counts alpha."""

    @dataclass
    class Config:
        """Settings ``ld_dpo.*``."""

        alpha: float = field(
            default=0.5,
            metadata={
                "help": "weight of the longer answer's tail; 1: plain DPO",
                "minimum": 0.0,
                "maximum": 1.0,
            },
        )
        beta: float = field(
            default=0.1, metadata={"help": "strength of the pull to the reference", "minimum": 1e-6}
        )
        ref_mode: str = field(
            default="both",
            metadata={
                "help": "whose tail is weighted: policy and reference, or the policy alone",
                "choices": ("both", "policy_only"),
            },
        )
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
        """The weighted loss over pairs."""
        from llmfw.losses.preference import preference_loss

        from .functional import objective

        c = self.config
        chosen = objective(alpha=c.alpha, beta=c.beta, ref_mode=c.ref_mode)
        return Loss(
            name="ld_dpo",
            call=preference_loss(chosen),
            batch_kind="preference",
            unit="pairs",
            needs_reference=True,
        )

    @hookimpl
    def llmfw_metrics(self, run: Any, stage: Any) -> Sequence[NamedMetric]:
        """Intervals of held-out margin and accuracy; correlation of length gap and margin."""
        return pair_metrics(stage)

    @hookimpl
    def llmfw_evaluations(self, run: Any) -> Sequence[Evaluation]:
        """Length of the policy's answers."""
        return [answer_length(run.rows, self.config.answers)] if self.config.answers > 0 else []
