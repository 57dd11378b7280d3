"""Where the gates are put: on the attention of each block."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from llmfw import Report
from llmfw.core.models import decoder_layers, decoder_of

from .functional import gated

GATE = "my_method_gate"
"""Name of the new parameter; one that no model has."""


def add_gates(model: Any, generator: torch.Generator, *, scale: float) -> Report:
    """Give every block's attention a gate, in the model's own type and on its device.

    Called a second time it leaves the gates as they are. New parameters that aren't constant are drawn from
    ``generator``, never from a global one.
    """
    names = {id(module): name for name, module in model.named_modules()}
    changed = []
    for layer in decoder_layers(decoder_of(model)):
        attention: Any = layer.self_attn
        changed.append(f"{names[id(attention)]}.{GATE}")
        if hasattr(attention, GATE):
            continue
        like = next(attention.parameters())
        attention.register_parameter(
            GATE, torch.nn.Parameter(torch.zeros(1, dtype=like.dtype, device=like.device))
        )
        attention.register_forward_hook(partial(_after_attention, scale=scale))
    return Report(changed=tuple(changed))


def _after_attention(attention: Any, given: Any, output: Any, *, scale: float) -> Any:
    """The attention's output with its states gated."""
    gate = getattr(attention, GATE)
    if isinstance(output, tuple):
        return (gated(output[0], gate, scale=scale), *output[1:])
    return gated(output, gate, scale=scale)
