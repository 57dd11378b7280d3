"""The primitive under every loss: hidden states, language-model head and labels to per-token log-probs.

Shapes: N trained tokens, D width, V vocabulary (of this process), R rank; a tile is [C, W] of the [N, V]
logits. Only tiles of logits exist at any time: the forward pass keeps one log-sum-exp per token, the backward
pass computes each tile again and turns it into gradients in place. Prompt and masked positions never reach
the head, because the caller passes the trained tokens' hidden states alone. How large a tile is:
``llmfw.losses.logps_tiles``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from llmfw.losses.logps_group import all_sum, merge
from llmfw.losses.logps_head import Form, TiledHead
from llmfw.losses.logps_kernel import choose, run_flows, run_scan
from llmfw.losses.logps_tiles import Tile, chunk_rows, tile_of

__all__ = ["chunk_rows", "token_logps"]


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    low_rank: tuple[Tensor, Tensor, float] | None = None,
    chunk: int | None = None,
    block: int | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    group: Any = None,
    first: int = 0,
    kernel: Literal["auto", "tiles", "triton"] = "auto",
) -> Tensor:
    """Log-probs of ``target`` under ``log_softmax(cap(scale * (hidden @ weight.T + bias + low)))``, tile by
    tile.

    cap(z) is ``softcap * tanh(z / softcap)``, or z where ``softcap`` is None; low is ``s * (hidden @ A.T) @
    B.T`` of ``low_rank = (A, B, s)``, or nothing. Differentiable once, in hidden, weight, bias, A and B; a
    backward pass with ``create_graph=True`` is refused.

    Args:
        hidden: [N, D] states that predict the trained tokens; N may be 0.
        weight: [V, D] of the head, possibly tied to the embedding. Frozen (LoRA): no gradient is computed,
            and the states' gradient is made in the forward pass, which saves the second look at the logits.
        target: [N] int64, each in [0, V).
        bias: [V] or None.
        low_rank: (A [R, D], B [V, R], factor), an adapter beside the weight (LoRA, arXiv 2106.09685, eq. 3);
            the sum of both is never built.
        chunk, block: tokens and words of a tile of logits; None: what ``tile_of`` finds.
        softcap, scale: constants of the head; no gradient flows into them.
        group: a process group of ``torch.distributed`` whose ranks each hold some words: V is then this
            rank's share (0 is allowed), target counts in the whole vocabulary, and hidden, target, A and the
            incoming gradient must be the same on all ranks. Results and the gradients of hidden and A are the
            same on all ranks too; those of weight, bias and B are each rank's own. All ranks must want the
            same gradients.
        first: number of this rank's first word in the whole vocabulary.
        kernel: "tiles" are torch's own operations; "triton" are kernels for GPUs
            (``llmfw.losses.logps_triton``), an error where they can't be had; "auto" is what the environment
            variable ``LLMFW_HEAD`` says, else tiles. Where ``LLMFW_HEAD=triton`` can't be followed, a note
            says why, once, and the tiles are used.

    Returns:
        [N] log-probs in nats: float64 for float64 inputs, else float32.

    Precision: products of float16 and bfloat16 inputs are accumulated and kept in float32; gradients are
    accumulated in float32 over the tiles and rounded once. Under autocast the inputs are rounded to its dtype
    first, and nothing else of autocast applies, neither here nor in the backward pass.

    Raises:
        ValueError: shapes that do not fit, ``chunk`` or ``block`` below 1, ``softcap`` not above 0, a
            ``first`` without a group, an unknown kernel.
        RuntimeError: a target outside the vocabulary (on a GPU: an assertion on the device).
    """
    _check(hidden, weight, target, bias, low_rank, chunk, block, softcap, first if group is None else 0)
    device = hidden.device.type
    compute = torch.promote_types(hidden.dtype, weight.dtype)
    rounded = torch.is_autocast_enabled(device) and compute != torch.float64
    if rounded:
        compute = torch.get_autocast_dtype(device)
    # a capped head needs the capped logits beside the probabilities: two buffers
    found = tile_of(
        hidden.shape[0], weight.shape[0], hidden.shape[1],
        itemsize=weight.dtype.itemsize, buffers=1 if softcap is None else 2, device=device,
    )  # fmt: skip
    form = Form(
        softcap=softcap,
        scale=scale,
        low_scale=1.0 if low_rank is None else low_rank[2],
        compute=compute,
        rounded=rounded,
        tile=Tile(rows=chunk or found.rows, words=block or found.words),
        kernel=choose(kernel, hidden, compute, low_rank is not None),
        group=group,
        first=first,
    )
    down, up = (None, None) if low_rank is None else low_rank[:2]
    wants = torch.is_grad_enabled()
    apply: Callable[..., Tensor] = _TokenLogps.apply
    return apply(hidden, weight, target, bias, down, up, form, wants)


class _TokenLogps(torch.autograd.Function):
    """Saved between the passes: the inputs and one log-sum-exp per token; of a frozen head in place of all of
    these the gradient of each token's log-prob with respect to its states.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None,
        down: Tensor | None,
        up: Tensor | None,
        form: Form,
        wants: bool,
    ) -> Tensor:
        to_hidden, to_weight, _, to_bias, to_down, to_up = ctx.needs_input_grad[:6]
        ctx.form, ctx.pulled = form, False
        with torch.autocast(hidden.device.type, enabled=False):
            head = TiledHead(hidden, weight, target, bias, _pair(down, up), form)
            pull = wants and to_hidden and down is None and not (to_weight or to_bias or to_down or to_up)
            pull = pull and form.kernel == "tiles"
            sums = run_scan(head, pull)
            mine = sums.top
            merged = merge(sums, head.owned, form.group)
            lse = merged.total.log() + merged.top
            logps = merged.chosen - lse
            if sums.pull is not None:
                slope = 1.0 if form.softcap is None else 1.0 - (merged.chosen / form.softcap).square()
                # the target's own share, 1 - p, is taken apart, where p near 1 would cancel
                keep = -torch.expm1(logps).mul(slope).mul_(form.scale)
                unit = head.at_target().mul_(keep[:, None])
                unit.addcmul_(sums.pull, torch.exp(mine - lse).mul_(form.scale)[:, None], value=-1.0)
                ctx.pulled = True
                ctx.dtype = hidden.dtype
                ctx.save_for_backward(unit)
                return logps
        ctx.save_for_backward(hidden, weight, target, bias, down, up, lse)
        return logps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """d logp / d logit = onehot(target) - softmax, times the slopes of cap and scale."""
        if torch.is_grad_enabled():
            # torch's once_differentiable lets a constant incoming gradient through, and the second derivative
            # would then be missing without a word.
            raise RuntimeError("token_logps has no second derivative; leave create_graph=True off")
        if ctx.pulled:
            (unit,) = ctx.saved_tensors
            to_states = all_sum(unit * grad[:, None].to(unit.dtype), ctx.form.group)
            return (to_states.to(ctx.dtype), *[None] * 7)
        hidden, weight, target, bias, down, up, lse = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            head = TiledHead(hidden, weight, target, bias, _pair(down, up), ctx.form)
            return (*_gradients(head, hidden, (bias, down, up), lse, grad, ctx.needs_input_grad), None, None)


def _gradients(
    head: TiledHead,
    hidden: Tensor,
    extras: tuple[Tensor | None, Tensor | None, Tensor | None],
    lse: Tensor,
    grad: Tensor,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of hidden, weight, (target), bias, A, B; each in its input's dtype."""
    bias, down, up = extras
    wants_hidden, wants_weight, _, wants_bias, wants_down, wants_up = wanted[:6]
    form, wide, weight = head.form, head.wide, head.weight
    signal = grad.to(wide).mul(-form.scale)
    folded = None if head.native else signal[:, None]  # flows lack the signal: their partners carry it
    like: dict[str, Any] = {"dtype": wide, "device": hidden.device}
    wants_inner = head.inner is not None and (wants_hidden or wants_down)
    to_hidden = torch.zeros(hidden.shape, **like) if wants_hidden else None
    to_inner = torch.zeros_like(head.inner) if wants_inner and head.inner is not None else None
    make = torch.empty if head.tokens else torch.zeros
    to_weight = make(weight.shape, dtype=weight.dtype, device=weight.device) if wants_weight else None
    to_bias = torch.zeros(head.vocabulary, **like) if wants_bias else None
    to_up = torch.zeros(up.shape, **like) if wants_up and up is not None else None
    states = head.states if folded is None else head.states * folded if wants_weight else None
    inner = head.inner if folded is None or head.inner is None else head.inner * folded
    sum_up: Tensor | None = None
    for part, words, block, flow in run_flows(head, lse, signal):
        if to_hidden is not None:
            head.onto(to_hidden[part], flow, block)
        if to_weight is not None and states is not None:
            sum_up = _into_weight(head, flow, states, part, words, to_weight, sum_up)
        spread = flow.to(wide) if (to_bias is not None or head.inner is not None) else flow
        if to_bias is not None:
            to_bias[words] += spread.sum(0) if folded is None else torch.mv(spread.t(), signal[part])
        if to_inner is not None and head.low is not None:
            to_inner[part].addmm_(spread, head.low[1][words])
        if to_up is not None and inner is not None:
            to_up[words].addmm_(spread.t(), inner[part])
    if folded is not None:
        for total in (to_hidden, to_inner):
            if total is not None:
                total.mul_(folded)
    to_down: Tensor | None = None
    if to_inner is not None and head.low is not None:
        to_inner.mul_(form.low_scale)
        if to_hidden is not None:
            to_hidden.addmm_(to_inner, head.low[0])
        if wants_down:
            to_down = all_sum(torch.mm(to_inner.t(), head.states.to(wide)), form.group)
    if to_hidden is not None:
        to_hidden = all_sum(to_hidden, form.group)
    return (
        _as(to_hidden, hidden),
        to_weight,
        None,
        _as(to_bias, bias),
        _as(to_down, down),
        _as(to_up, up),
    )


def _into_weight(
    head: TiledHead,
    flow: Tensor,
    states: Tensor,
    part: slice,
    words: slice,
    to_weight: Tensor,
    block: Tensor | None,
) -> Tensor | None:
    """to_weight[words] += flow.T @ states[part]; a half-precision block is summed up in float32 and rounded
    once.
    """
    if to_weight.dtype == head.wide and not head.native:
        if part.start == 0:
            torch.mm(flow.t(), states[part], out=to_weight[words])
        else:
            to_weight[words].addmm_(flow.t(), states[part])
        return None
    if part.start == 0 or block is None:
        block = head.product(flow.t(), states[part])
    else:
        head.onto(block, flow.t(), states[part])
    if part.stop == head.tokens:
        to_weight[words].copy_(block)
    return block


def _pair(down: Tensor | None, up: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if down is None or up is None else (down, up)


def _as(value: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if value is None or like is None else value.to(like.dtype)


def _check(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    low_rank: tuple[Tensor, Tensor, float] | None,
    chunk: int | None,
    block: int | None,
    softcap: float | None,
    first: int,
) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        shapes = f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"hidden must be [N, D] and weight [V, D], not {shapes}")
    if target.shape != hidden.shape[:1] or target.dtype != torch.int64:
        what = f"{tuple(target.shape)} {target.dtype}"
        raise ValueError(f"target must be [{hidden.shape[0]}] int64, not {what}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}], not {tuple(bias.shape)}")
    if low_rank is not None:
        down, up, _ = low_rank
        fits = down.dim() == up.dim() == 2 and down.shape[0] == up.shape[1]
        if not fits or (up.shape[0], down.shape[1]) != tuple(weight.shape):
            right = f"[R, {weight.shape[1]}] and [{weight.shape[0]}, R]"
            raise ValueError(f"low_rank must be {right}, not {tuple(down.shape)} and {tuple(up.shape)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    if block is not None and block < 1:
        raise ValueError(f"block must be at least 1, not {block}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be above 0, not {softcap}")
    if first:
        raise ValueError(f"first is a shard's place and needs a group, not {first} alone")
