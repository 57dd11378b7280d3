"""Which implementation of the tiles runs: torch's operations, or the Triton kernels.

``auto`` are torch's operations: the kernels were compiled and interpreted, but never ran on a GPU, and
what was not measured is no default. ``python -m benchmarks.lm_head --device cuda`` checks and times them on
one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from llmfw.losses.logps_head import Sums, TiledHead

ENVIRONMENT = "LLMFW_HEAD"
"""Names the kernel of calls that leave it open: tiles or triton."""
KERNELS = ("tiles", "triton")
_said: set[str] = set()


def choose(kernel: str, hidden: Tensor, compute: torch.dtype, low_rank: bool) -> str:
    """ "tiles", "triton", or "triton or tiles" (where it was asked for by the environment and may fail with a
    note).

    Raises:
        ValueError: an unknown name; a kernel that was asked for by argument and can't be had.
    """
    asked = kernel if kernel != "auto" else os.environ.get(ENVIRONMENT) or "tiles"
    if asked not in KERNELS:
        where = f"{ENVIRONMENT}={asked}" if kernel == "auto" else f"kernel={asked!r}"
        raise ValueError(f"{where}: must be one of {', '.join(KERNELS)}")
    if asked == "tiles":
        return asked
    missing = _missing(hidden, compute, low_rank)
    if not missing:
        return "triton" if kernel != "auto" else "triton or tiles"
    if kernel != "auto":
        raise ValueError(f"kernel='triton' can't be had: {missing}")
    _note(missing)
    return "tiles"


def run_scan(head: TiledHead, pull: bool) -> Sums:
    """The forward pass over all tiles; ``pull`` as in ``TiledHead.scan``, for tiles only."""
    if head.form.kernel == "tiles":
        return head.scan(pull=pull)
    try:
        from llmfw.losses.logps_triton import scan

        return scan(head)
    except Exception as error:
        _failed(head, error)
        return head.scan(pull=pull)


def run_flows(head: TiledHead, lse: Tensor, signal: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """The backward pass's tiles, as of ``TiledHead.flows``."""
    if head.form.kernel == "tiles":
        yield from head.flows(lse, signal)
        return
    from llmfw.losses.logps_triton import flows

    given = 0
    try:
        for found in flows(head, lse, signal):
            yield found
            given += 1
    except Exception as error:
        if given:  # half of the gradient is summed up already
            raise
        _failed(head, error)
        yield from head.flows(lse, signal)


def _failed(head: TiledHead, error: Exception) -> None:
    if head.form.kernel == "triton":
        raise error
    first = (str(error).splitlines() or [""])[0]
    _note(f"the kernel failed with {type(error).__name__}: {first}")


def _missing(hidden: Tensor, compute: torch.dtype, low_rank: bool) -> str:
    """Why the kernels can't serve this call; nothing where they can."""
    if low_rank:
        return "they have no low-rank term"
    if compute not in (torch.float32, torch.bfloat16, torch.float16):
        return f"they don't compute in {compute}"
    if find_spec("triton") is None:
        return "the package triton isn't installed"
    if hidden.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {hidden.device.type}"
    return ""


def _note(reason: str) -> None:
    """Once a process and reason."""
    if reason in _said:
        return
    _said.add(reason)
    from llmfw.core.say import say

    say(f"note: {ENVIRONMENT}=triton is not followed: {reason}; torch's operations do the same work")
