"""Kernels for GPUs behind ``token_logps``: the log-sum-exp without logits in memory, and tiles of their
gradient.

The idea that a head's cross entropy needs no logits in memory is published as cut cross-entropy (arXiv
2411.09009); the division of the work here is another. Forward: a program takes BN tokens through a share of
the vocabulary with running maxima and writes three numbers a token and share, which are then merged.
Backward: a program makes a tile of logits again and writes it as a finished flow, (softmax - onehot) times
the slopes and the incoming gradient, in the dtype in which it's multiplied; the products with states and
weight are the vendor's. No atomics: the same call gives the same bits.

These kernels have been compiled for GPUs (sm_80, sm_90) and have run in Triton's interpreter
(``TRITON_INTERPRET=1``, which can't multiply bfloat16), never on a GPU: block sizes are guesses, and ``auto``
does not choose them (``llmfw.losses.logps_kernel``).

Shapes: N tokens, D width, V words, S shares of the vocabulary; BN, BV, BD the sides of a program's blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmfw.losses.logps_head import Sums, TiledHead

BN, BV, BD = 64, 128, 32
"""A program's tokens, words, and width a step. Each at least 16, a power of two."""
PROGRAMS = 512
"""About how many programs a forward pass is divided into: a few for each of a large GPU's 100 to 150 parts.
"""

LOWEST = torch.finfo(torch.float32).min
"""Where running maxima start: not -inf, because a block of words that are all barred must not make NaN."""


@triton.jit
def _capped(logits, softcap, HAS_CAP: tl.constexpr):
    if HAS_CAP:
        # tanh by way of sigmoid: the former is the vendor library's, which the interpreter lacks
        logits = softcap * (2.0 * tl.sigmoid(2.0 * logits / softcap) - 1.0)
    return logits


@triton.jit
def _logits(
    hidden, weight, bias, rows, words, N, V, D,
    h_n, h_d, w_v, w_d, scale, softcap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """[BN, BV] in float32; what lies outside N and V is not -inf yet."""
    found = tl.zeros((BN, BV), dtype=tl.float32)
    for start in range(0, D, BD):
        width = start + tl.arange(0, BD)
        states = tl.load(
            hidden + rows[:, None].to(tl.int64) * h_n + width[None, :] * h_d,
            mask=(rows[:, None] < N) & (width[None, :] < D), other=0.0,
        )  # fmt: skip
        block = tl.load(
            weight + words[None, :].to(tl.int64) * w_v + width[:, None] * w_d,
            mask=(words[None, :] < V) & (width[:, None] < D), other=0.0,
        )  # fmt: skip
        found = tl.dot(states, block, found, input_precision=PRECISION)
    if HAS_BIAS:
        found += tl.load(bias + words, mask=words < V, other=0.0).to(tl.float32)[None, :]
    return _capped(found * scale, softcap, HAS_CAP)


@triton.jit
def _scan(
    hidden, weight, bias, place, top, total, chosen,
    N, V, D, share, h_n, h_d, w_v, w_d, scale, softcap,
    LOWEST: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Largest logit, sum of exp(logit - largest) and the target's logit of BN tokens over one share of V."""
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    first = tl.program_id(1) * share
    stop = tl.minimum(first + share, V)
    target = tl.load(place + rows, mask=rows < N, other=-1)
    high = tl.full((BN,), LOWEST, dtype=tl.float32)
    summed = tl.zeros((BN,), dtype=tl.float32)
    found = tl.zeros((BN,), dtype=tl.float32)
    for start in range(first, stop, BV):
        words = start + tl.arange(0, BV)
        logits = _logits(
            hidden, weight, bias, rows, words, N, V, D, h_n, h_d, w_v, w_d, scale, softcap,
            HAS_BIAS, HAS_CAP, PRECISION, BN, BV, BD,
        )  # fmt: skip
        inside = (words < stop)[None, :]
        logits = tl.where(inside, logits, float("-inf"))
        found += tl.sum(tl.where(inside & (words[None, :] == target[:, None]), logits, 0.0), axis=1)
        higher = tl.maximum(high, tl.max(logits, axis=1))
        summed = summed * tl.exp(high - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
        high = higher
    out = tl.program_id(1) * N + rows
    tl.store(top + out, high, mask=rows < N)
    tl.store(total + out, summed, mask=rows < N)
    tl.store(chosen + out, found, mask=rows < N)


@triton.jit
def _flow(
    hidden, weight, bias, place, lse, signal, flow,
    N, V, D, h_n, h_d, w_v, w_d, scale, softcap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, HAS_SIGNAL: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """[N, V] gradient of -logp with respect to the uncapped, unscaled logits, but for ``scale``."""
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    words = tl.program_id(1) * BV + tl.arange(0, BV)
    logits = _logits(
        hidden, weight, bias, rows, words, N, V, D, h_n, h_d, w_v, w_d, scale, softcap,
        HAS_BIAS, HAS_CAP, PRECISION, BN, BV, BD,
    )  # fmt: skip
    target = tl.load(place + rows, mask=rows < N, other=-1)
    found = tl.exp(logits - tl.load(lse + rows, mask=rows < N, other=0.0)[:, None])
    found = found - tl.where(words[None, :] == target[:, None], 1.0, 0.0)
    if HAS_CAP:
        part = logits / softcap
        found = found * (1.0 - part * part)
    if HAS_SIGNAL:
        found = found * tl.load(signal + rows, mask=rows < N, other=0.0)[:, None]
    out = flow + rows[:, None].to(tl.int64) * V + words[None, :]
    tl.store(out, found.to(flow.dtype.element_ty), mask=(rows[:, None] < N) & (words[None, :] < V))


def scan(head: TiledHead) -> Sums:
    """As ``TiledHead.scan``, with [S, N] numbers in place of a tile of logits."""
    tokens, vocabulary = head.tokens, head.vocabulary
    if not tokens or not vocabulary:
        return head.scan(pull=False)
    states, weight = head.states, _rounded(head, head.weight)
    shares = max(1, min(triton.cdiv(vocabulary, BV), PROGRAMS // triton.cdiv(tokens, BN)))
    share = triton.cdiv(triton.cdiv(vocabulary, BV), shares) * BV
    shares = triton.cdiv(vocabulary, share)
    top, total, chosen = torch.empty(3, shares, tokens, dtype=torch.float32, device=states.device)
    with _on(states.device):
        _scan[(triton.cdiv(tokens, BN), shares)](
            states, weight, _bias(head, slice(None)), head.place, top, total, chosen,
            tokens, vocabulary, states.shape[1], share, *states.stride(), *weight.stride(),
            head.form.scale, head.form.softcap or 1.0, LOWEST=LOWEST, **_constants(head),
        )  # fmt: skip
    high = top.amax(0)
    return Sums(top=high, total=(total * torch.exp(top - high)).sum(0), chosen=chosen.sum(0))


def flows(head: TiledHead, lse: Tensor, signal: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """As ``TiledHead.flows``, each tile written by one kernel in the dtype in which it is multiplied."""
    lse, signal = lse.contiguous(), signal.contiguous()
    for words, block in head.blocks():
        for part in head.parts():
            states, place = head.states[part], head.place[part] - words.start
            rows, size = states.shape[0], block.shape[0]
            dtype = head.form.compute if head.native else head.wide
            flow = torch.empty(rows, size, dtype=dtype, device=states.device)
            with _on(states.device):
                _flow[(triton.cdiv(rows, BN), triton.cdiv(size, BV))](
                    states, block, _bias(head, words), place, lse[part], signal[part], flow,
                    rows, size, states.shape[1], *states.stride(), *block.stride(),
                    head.form.scale, head.form.softcap or 1.0, HAS_SIGNAL=head.native, **_constants(head),
                )  # fmt: skip
            yield part, words, block, flow


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _rounded(head: TiledHead, weight: Tensor) -> Tensor:
    """The weight as it's multiplied; a copy only where its dtype is not that of the computation."""
    return weight.to(head.form.compute).to(head.states.dtype)


def _bias(head: TiledHead, words: slice) -> Tensor:
    """A bias, or anything with an address."""
    return head.place if head.bias is None else head.bias[words].contiguous()


def _constants(head: TiledHead) -> dict[str, Any]:
    return {
        "HAS_BIAS": head.bias is not None,
        "HAS_CAP": head.form.softcap is not None,
        # float32 is float32: the fast rounding to 10 bits of mantissa is not what was asked for
        "PRECISION": "ieee",
        "BN": BN,
        "BV": BV,
        "BD": BD,
    }
