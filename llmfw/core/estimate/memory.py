"""From a step's tensors to the peak of a process: libraries, the allocator's slack, DDP's buckets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmfw.core.estimate.heap import grown, libc
from llmfw.core.estimate.trace import Memory

UNCERTAINTY = 0.15
"""By how much the measured peak may differ from the predicted one, as a share of the latter."""
SLACK = 0.10
"""Memory that an allocator holds beside what is in use, as a share of what a step makes anew and frees: where
the allocator isn't glibc's, whose heap is followed instead (``heap``).
"""
PARTS = ("weights", "gradients", "optimizer", "reference", "activations", "head", "buckets", "slack", "base")


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A predicted peak in bytes, and what it's made of."""

    total: int
    parts: Mapping[str, int]

    @property
    def low(self) -> int:
        """The measured peak is not expected below."""
        return int(self.total * (1 - UNCERTAINTY))

    @property
    def high(self) -> int:
        """The measured peak is not expected above."""
        return int(self.total * (1 + UNCERTAINTY))


def peak_of(steps: Sequence[Memory], base: int, *, processes: int = 1, device: str = "cpu") -> Peak:
    """The peak of a process that takes such steps again and again, the first one being the largest.

    Args:
        base: bytes that the process holds without any of it (``base_memory``); nothing on a GPU.
        processes: of DDP, which keeps a second copy of all gradients in its buckets.
    """
    memory = steps[0]
    parts = dict.fromkeys(PARTS, 0) | dict(memory.parts)
    if processes > 1:
        parts["buckets"] = memory.gradients
    version = libc() if device == "cpu" else None
    if version is None:
        parts["slack"] = int(SLACK * (parts["activations"] + parts["head"]))
    else:
        turns = [steps[0].step, steps[-1].step, steps[0].step]
        taken = grown(memory.there, turns, tight=version >= (2, 38))
        parts["slack"] = max(0, taken - memory.peak)
    parts["base"] = base if device == "cpu" else 0
    return Peak(total=sum(parts.values()), parts=parts)


def base_memory(*, tracking: bool) -> int:
    """Bytes of this process with everything imported that training imports, before any tensor is made."""
    import psutil

    import llmfw.core.fit  # noqa: F401  # training's own imports

    if tracking and "mlflow" not in sys.modules:
        import mlflow  # noqa: F401
    return int(psutil.Process().memory_info().rss)
