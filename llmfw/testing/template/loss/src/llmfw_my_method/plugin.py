"""Settings and hooks: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Loss, NamedMetric, Plugin, hookimpl
from llmfw.callbacks.preference import pair_metrics


class MyMethod(Plugin):
    """A preference loss that expects a share of the labels to be wrong."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        flipped: float = field(
            default=0.1,
            metadata={
                "help": "probability that a label is wrong; 0: plain DPO",
                "minimum": 0.0,
                "maximum": 0.5,
            },
        )
        beta: float = field(
            default=0.1, metadata={"help": "strength of the pull to the reference", "minimum": 1e-6}
        )

    config: Config

    @hookimpl
    def llmfw_loss(self, run: Any, tokenizer: Any, model_config: Any) -> Loss:
        """The loss over pairs."""
        from llmfw.losses.preference import preference_loss  # brings torch: only when a run is planned

        from .functional import objective

        chosen = objective(beta=self.config.beta, flipped=self.config.flipped)
        return Loss(
            name="my_method",
            call=preference_loss(chosen),
            batch_kind="preference",
            unit="pairs",
            needs_reference=True,
        )

    @hookimpl
    def llmfw_metrics(self, run: Any, stage: Any) -> Sequence[NamedMetric]:
        """Intervals of held-out margin and accuracy."""
        return pair_metrics(stage)
