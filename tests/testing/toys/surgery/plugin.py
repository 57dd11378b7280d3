"""A learned shift: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llmfw import Plugin, Surgery, hookimpl


class Toy(Plugin):
    """Adds ``scale`` times a learned vector to the last hidden state."""

    @dataclass
    class Config:
        """Settings ``base_surgery.*``."""

        scale: float = field(
            default=0.5, metadata={"help": "size of the shift; 0: the model as it is", "minimum": 0.0}
        )

    config: Config

    @hookimpl
    def llmfw_surgeries(self, run: Any, model_config: Any) -> Sequence[Surgery]:
        """One, after the weights are loaded."""
        from .surgery import add_shift

        return [
            Surgery(
                name="base_surgery",
                phase="after_load",
                apply=partial(add_shift, scale=self.config.scale),
                trainable=("model.norm.shift",),
                no_weight_decay=("model.norm.shift",),
            )
        ]
