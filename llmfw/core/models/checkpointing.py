"""Whether a model's layers can be made again whole; a module of its own, as a plan asks it in no time."""

from __future__ import annotations

from torch import nn

from llmfw.core.errors import UsageError


def check_layers(model: nn.Module) -> None:
    """Refuse a model whose layers can't be made again whole.

    Raises:
        UsageError: CHECKPOINTING.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UsageError(
            "CHECKPOINTING",
            f"transformers' {type(model).__name__} can't recompute its activations",
            mend="set trainer.recompute=none",
            key="trainer.recompute",
        )
