"""The primitive under every loss: hidden states, language-model head and labels to per-token log-probs.

Shapes: N trained tokens, D width, V vocabulary, C tokens in a chunk.
Only [C, V] logits exist at any time: the forward pass keeps one log-sum-exp per token, the backward pass
computes each chunk's logits again and turns them into gradients in place. Prompt and masked positions never
reach the head, because the caller passes the trained tokens' hidden states alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

LOGITS_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
"""Most memory of one chunk's logits by device (others as cpu); a GPU wants many rows a pass."""
BLOCK_BYTES = 64 * 2**20
"""Most memory of a block of the head's weight that is widened from half precision to float32."""


_MM_WIDENS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
"""Whether ``torch.mm`` has ``out_dtype`` (on GPUs)."""


def chunk_rows(
    tokens: int, vocabulary: int, itemsize: int = 4, *, buffers: int = 1, device: str = "cpu"
) -> int:
    """Rows per chunk: as many as ``LOGITS_BYTES`` allow, evened out so that no small chunk is left over."""
    budget = LOGITS_BYTES.get(device, LOGITS_BYTES["cpu"])
    most = max(1, budget // max(1, vocabulary * itemsize * buffers))
    chunks = max(1, -(-tokens // most))
    return max(1, -(-tokens // chunks))


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Log-probs of ``target`` under ``log_softmax(cap(scale * (hidden @ weight.T + bias)))``, chunk by chunk.

    cap(z) is ``softcap * tanh(z / softcap)``, or z where ``softcap`` is None. Differentiable once, in hidden,
    weight and bias; a backward pass with ``create_graph=True`` is refused.

    Args:
        hidden: [N, D] states that predict the trained tokens; N may be 0.
        weight: [V, D] of the head, possibly tied to the embedding. Frozen (LoRA): no gradient is computed.
        target: [N] int64, each in [0, V).
        bias: [V] or None.
        chunk: rows of logits alive at once; None: as many as ``LOGITS_BYTES`` allows.
        softcap, scale: constants of the head; no gradient flows into them.

    Returns:
        [N] log-probs in nats: float64 for float64 inputs, else float32.

    Precision: products of float16 and bfloat16 inputs are accumulated and kept in float32; gradients are
    accumulated in float32 over the chunks and rounded once. Under autocast the inputs are rounded to its
    dtype first, and nothing else of autocast applies, neither here nor in the backward pass.

    Raises:
        ValueError: shapes that do not fit, ``chunk`` below 1, or ``softcap`` not above 0.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        shapes = f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"hidden must be [N, D] and weight [V, D], not {shapes}")
    if target.shape != hidden.shape[:1] or target.dtype != torch.int64:
        what = f"{tuple(target.shape)} {target.dtype}"
        raise ValueError(f"target must be [{hidden.shape[0]}] int64, not {what}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}], not {tuple(bias.shape)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be above 0, not {softcap}")
    device = hidden.device.type
    compute = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and compute != torch.float64:
        compute = torch.get_autocast_dtype(device)
    apply: Callable[..., Tensor] = _TokenLogps.apply
    return apply(hidden, weight, target, bias, chunk, softcap, scale, compute)


class _TokenLogps(torch.autograd.Function):
    """Saved between the passes: the inputs and one log-sum-exp per token."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None,
        chunk: int | None,
        softcap: float | None,
        scale: float,
        compute: torch.dtype,
    ) -> Tensor:
        head = _Head(weight, bias, softcap, scale, compute)
        tokens = hidden.shape[0]
        # The backward pass of a capped head needs the capped logits beside the probabilities: two buffers.
        buffers = 1 if softcap is None else 2
        rows = chunk or chunk_rows(
            tokens, weight.shape[0], head.wide.itemsize, buffers=buffers, device=hidden.device.type
        )
        logps = torch.empty(tokens, dtype=head.wide, device=hidden.device)
        lse = torch.empty_like(logps)
        with torch.autocast(hidden.device.type, enabled=False):
            for part, logits in head.chunks(hidden, rows):
                chosen = logits.gather(1, target[part, None])[:, 0]
                top = logits.amax(1)
                lse[part] = logits.sub_(top[:, None]).exp_().sum(1).log_().add_(top)
                logps[part] = chosen - lse[part]
        ctx.save_for_backward(hidden, weight, target, bias, lse)
        ctx.settings = (rows, softcap, scale, compute)
        return logps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """d logp / d logit = onehot(target) - softmax, times the slopes of cap and scale."""
        if torch.is_grad_enabled():
            # torch's once_differentiable lets a constant incoming gradient through, and the second derivative
            # would then be missing without a word.
            raise RuntimeError("token_logps has no second derivative; leave create_graph=True off")
        hidden, weight, target, bias, lse = ctx.saved_tensors
        rows, softcap, scale, compute = ctx.settings
        wants_hidden, wants_weight, _, wants_bias = ctx.needs_input_grad[:4]
        head = _Head(weight, bias, softcap, scale, compute)
        to_hidden = torch.empty_like(hidden) if wants_hidden else None
        to_weight = torch.zeros(weight.shape, dtype=head.wide, device=weight.device) if wants_weight else None
        to_bias = torch.zeros(weight.shape[0], dtype=head.wide, device=weight.device) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part, logits in head.chunks(hidden, rows):
                slope = None if softcap is None else torch.div(logits, softcap).square_().neg_().add_(1.0)
                signal = grad[part, None].to(head.wide)
                flow = logits.sub_(lse[part, None]).exp_().mul_(-signal)
                flow[torch.arange(flow.shape[0], device=flow.device), target[part]] += signal[:, 0]
                if slope is not None:
                    flow.mul_(slope)
                if scale != 1.0:
                    flow.mul_(scale)
                if to_hidden is not None:
                    to_hidden[part] = head.into_hidden(flow)
                if to_weight is not None:
                    head.into_weight(flow, hidden[part], to_weight)
                if to_bias is not None:
                    to_bias += flow.sum(0)
        return (
            to_hidden,
            None if to_weight is None else to_weight.to(weight.dtype),
            None,
            None if to_bias is None or bias is None else to_bias.to(bias.dtype),
            None,
            None,
            None,
            None,
        )


class _Head:
    """The head's three matrix products, each accumulated and returned in ``wide``.

    In full precision each is one call. In half precision a GPU multiplies natively with float32 results;
    elsewhere the weight is widened block by block over the vocabulary, so that no float32 copy is ever whole.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, softcap: float | None, scale: float, compute: torch.dtype
    ) -> None:
        self.weight, self.bias = weight, bias
        self.softcap, self.scale, self.compute = softcap, scale, compute
        self.wide = torch.float64 if compute == torch.float64 else torch.float32
        self.native = _MM_WIDENS and weight.device.type == "cuda" and compute != self.wide

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the weight, rounded to ``compute`` and (but for native products) widened."""
        vocabulary, width = self.weight.shape
        if self.weight.dtype == self.compute == self.wide:
            yield slice(0, vocabulary), self.weight
            return
        rows = max(1, BLOCK_BYTES // (width * 4))
        for start in range(0, vocabulary, rows):
            part = slice(start, min(start + rows, vocabulary))
            yield part, self.narrow(self.weight[part])

    def narrow(self, value: Tensor) -> Tensor:
        rounded = value.to(self.compute)
        return rounded if self.native else rounded.to(self.wide)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        if self.native:
            return torch.mm(left, right, out_dtype=self.wide)
        return torch.mm(left, right)

    def chunks(self, hidden: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """[C, V] logits chunk by chunk, in one buffer that the consumer may overwrite."""
        tokens, vocabulary = hidden.shape[0], self.weight.shape[0]
        buffer = torch.empty(min(rows, tokens), vocabulary, dtype=self.wide, device=hidden.device)
        for start in range(0, tokens, rows):
            part = slice(start, min(start + rows, tokens))
            logits, states = buffer[: part.stop - start], self.narrow(hidden[part])
            for columns, weight in self.blocks():
                if self.native:
                    logits[:, columns] = self.product(states, weight.t())
                else:
                    torch.mm(states, weight.t(), out=logits[:, columns])
            if self.bias is not None:
                logits.add_(self.bias)
            if self.scale != 1.0:
                logits.mul_(self.scale)
            if self.softcap is not None:
                logits.div_(self.softcap).tanh_().mul_(self.softcap)
            yield part, logits

    def into_hidden(self, flow: Tensor) -> Tensor:
        """[C, V] x [V, D] -> [C, D]."""
        total: Tensor | None = None
        for columns, weight in self.blocks():
            part = self.narrow(flow[:, columns]) if self.native else flow[:, columns]
            piece = self.product(part, weight)
            total = piece if total is None else total.add_(piece)
        assert total is not None
        return total

    def into_weight(self, flow: Tensor, hidden: Tensor, total: Tensor) -> None:
        """total += [V, C] x [C, D]."""
        states = self.narrow(hidden)
        if not self.native:
            total.addmm_(flow.t(), states)
            return
        for columns, _ in self.blocks():
            total[columns] += self.product(self.narrow(flow[:, columns]).t(), states)
