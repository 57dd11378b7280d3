"""Settings and hooks: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw import Plugin, Report, Surgery, hookimpl


class MyMethod(Plugin):
    """A gate on each block's attention."""

    @dataclass
    class Config:
        """Settings ``my_method.*``."""

        scale: float = field(
            default=1.0,
            metadata={"help": "how far a gate reaches; 0: the model stays as it is", "minimum": 0.0},
        )

    config: Config

    @hookimpl
    def llmfw_surgeries(self, run: Any, model_config: Any) -> Sequence[Surgery]:
        """Applied once the weights are there; trained and saved under LoRA too."""
        gates = ("*.my_method_gate",)
        return [
            Surgery(
                name="gates",
                phase="after_load",
                apply=self.apply,
                trainable=gates,
                no_weight_decay=gates,
                neutral=self.config.scale == 0,
            )
        ]

    def apply(self, model: Any, generator: Any) -> Report:
        """Put the gates in."""
        from .surgery import add_gates

        return add_gates(model, generator, scale=self.config.scale)
