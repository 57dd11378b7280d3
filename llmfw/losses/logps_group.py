"""Shards of a vocabulary: what the ranks of a process group tell each other about the tokens they share.

Shapes: N tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from llmfw.losses.logps_head import Sums


def merge(sums: Sums, owned: Tensor, group: Any) -> Sums:
    """The whole vocabulary's sums from this shard's (and from those of the other ranks, where there is a
    group).

    One maximum and one sum of [3, N] are exchanged; nothing where there are no tokens.

    Args:
        sums: this shard's.
        owned: [N] bool, whether the target is one of this shard's words.
        group: a process group, or None.

    Raises:
        RuntimeError: a target that no rank owns, or that two do (on a GPU: an assertion on the device).
    """
    count = owned.to(sums.total.dtype)
    if group is None or not len(count):
        _claimed(count, "target out of bounds: each must be a word of the vocabulary")
        return sums
    top = sums.top.clone()
    distributed.all_reduce(top, distributed.ReduceOp.MAX, group=group)
    parts = torch.stack([sums.total * torch.exp(sums.top - top), sums.chosen, count])
    distributed.all_reduce(parts, distributed.ReduceOp.SUM, group=group)
    _claimed(parts[2], "target out of bounds: each must be a word of one rank's shard, and of one only")
    return Sums(top=top, total=parts[0], chosen=parts[1], pull=sums.pull)


def all_sum(value: Tensor, group: Any) -> Tensor:
    """``value`` summed over the ranks, in place; as it is where there is no group or nothing in it."""
    if group is not None and value.numel():
        distributed.all_reduce(value, distributed.ReduceOp.SUM, group=group)
    return value


def _claimed(count: Tensor, message: str) -> None:
    torch._assert_async((count == 1).all(), message)  # no wait for the device
