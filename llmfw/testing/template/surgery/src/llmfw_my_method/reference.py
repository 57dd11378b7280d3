"""The slow oracle, number by number; it shares no code with ``functional.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def gated(states: Tensor, gate: Tensor, *, scale: float) -> Tensor:
    """Arguments as in ``functional.gated``; tanh from its definition."""
    rise, fall = torch.exp(gate), torch.exp(-gate)
    factor = 1 + scale * (rise - fall) / (rise + fall)
    flat = [value * factor for value in states.flatten()]
    return torch.cat(flat).reshape(states.shape)


def conformance_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the conformance kit asks both modules: a function's name and its arguments."""
    draw = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 1), (2, 3, 5)):
        for scale in (0.0, 0.5, 1.0):
            states, gate = torch.randn(shape, generator=draw), torch.randn(1, generator=draw)
            yield "gated", {"states": states, "gate": gate, "scale": scale}
