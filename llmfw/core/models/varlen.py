"""Attention of rows of any lengths in one call, with torch's kernel for GPUs.

Shapes: T positions of the row, H heads (G of keys and values), D width of a head, R runs, K keys of all runs
laid end to end: a prompt that two answers see stands there twice, its gradients add up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from llmfw.core.models.spans import Run

_log = logging.getLogger(__name__)
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Ragged:
    """Bounds of each run's queries and keys, and where its keys stand in the row."""

    queries: Tensor
    """[R + 1] int32."""
    keys: Tensor
    """[R + 1] int32."""
    places: Tensor | None
    """[K] int64; None: the row as it is."""
    longest: tuple[int, int]
    """(queries, keys) of the longest runs."""


def ragged(runs: Sequence[Run], device: torch.device) -> Ragged:
    """The runs' bounds on a device."""
    queries, keys, places = [0], [0], list[Tensor]()
    for run in runs:
        queries.append(queries[-1] + run.stop - run.start)
        keys.append(keys[-1] + run.key_count)
        places += [torch.arange(start, stop) for start, stop in run.keys]
    plain = queries == keys

    def moved(values: Tensor) -> Tensor:
        return values.to(device, non_blocking=True)

    return Ragged(
        queries=moved(torch.tensor(queries, dtype=torch.int32)),
        keys=moved(torch.tensor(keys, dtype=torch.int32)),
        places=None if plain else moved(torch.cat(places)),
        longest=(
            max(stop - start for start, stop in pairwise(queries)),
            max(stop - start for start, stop in pairwise(keys)),
        ),
    )


def varlen_usable(query: Tensor) -> bool:
    """Whether torch's kernel takes these queries."""
    return query.device.type == "cuda" and query.dtype in _HALF and _kernel() is not None


@cache
def _kernel() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        _log.warning("this torch has no varlen attention: packed rows take one attention call a sample")
        return None
    return varlen_attn


def with_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Ragged,
    *,
    scaling: float | None,
    window: int | None,
    kernel: Callable[..., Any] | None = None,
) -> Tensor:
    """[1, H, T, D] queries, [1, G, T, D] keys and values -> [1, T, H, D].

    ``kernel``: torch's varlen_attn, or one with its signature.
    """
    call = kernel or _kernel()
    assert call is not None
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if rows.places is not None:
        k, v = k.index_select(0, rows.places), v.index_select(0, rows.places)
    out: Tensor = call(
        q.contiguous(), k.contiguous(), v.contiguous(), rows.queries, rows.keys, *rows.longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out[None]
