"""The slow oracle, position by position; it shares no code with ``functional.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def kept(states: Tensor, *, sinks: int, recent: int) -> Tensor:
    """Arguments as in ``functional.kept``."""
    length = states.shape[2]
    chosen = [states[:, :, at] for at in range(length) if at < sinks or at >= length - recent]
    return torch.stack(chosen, dim=2) if chosen else states[:, :, :0]


def conformance_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the conformance kit asks both modules: a function's name and its arguments."""
    draw = torch.Generator().manual_seed(0)
    for length in (1, 4, 5, 20):
        for sinks, recent in ((0, 1), (2, 2), (1, 100)):
            states = torch.randn(2, 3, length, 4, generator=draw)
            yield "kept", {"states": states, "sinks": sinks, "recent": recent}
