"""What is changed of the model."""

from __future__ import annotations

from typing import Any

import torch

from llmfw import Report

from .functional import shifted


def add_shift(model: Any, generator: torch.Generator, *, scale: float) -> Report:
    """A vector beside the last norm's weight, drawn from ``generator``; a second call changes nothing."""
    norm = model.model.norm
    if not hasattr(norm, "shift"):
        shift = torch.randn(norm.weight.shape, generator=generator).to(norm.weight)
        norm.register_parameter("shift", torch.nn.Parameter(shift))
        norm.register_forward_hook(lambda module, given, out: shifted(out, module.shift, scale=scale))
    return Report(changed=("model.norm.shift",))
