"""The slow oracle, position by position; it shares no code with ``functional.py``."""

from __future__ import annotations

import torch
from torch import Tensor


def kept(states: Tensor, *, sinks: int, recent: int) -> Tensor:
    """Arguments as in ``functional.kept``."""
    length = states.shape[2]
    chosen = [states[:, :, at] for at in range(length) if at < sinks or at >= length - recent]
    return torch.stack(chosen, dim=2) if chosen else states[:, :, :0]
