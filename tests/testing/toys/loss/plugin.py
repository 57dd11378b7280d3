"""Early-weighted DPO: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmfw import Loss, Plugin, hookimpl


class Toy(Plugin):
    """DPO in which the first two tokens of an answer count ``early``."""

    @dataclass
    class Config:
        """Settings ``base_loss.*``."""

        early: float = field(
            default=3.0,
            metadata={"help": "weight of an answer's first two tokens; 1: plain DPO", "minimum": 0.0},
        )
        beta: float = field(
            default=0.1, metadata={"help": "strength of the pull to the reference", "minimum": 1e-6}
        )

    config: Config

    @hookimpl
    def llmfw_loss(self, run: Any, tokenizer: Any, model_config: Any) -> Loss:
        """The weighted loss over pairs."""
        from llmfw.losses.preference import preference_loss

        from .functional import objective

        chosen = objective(early=self.config.early, beta=self.config.beta)
        return Loss(
            name="base_loss",
            call=preference_loss(chosen),
            batch_kind="preference",
            unit="pairs",
            needs_reference=True,
        )
