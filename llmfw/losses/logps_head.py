"""The head's matrix products, tile by tile: what the forward pass sums up and what the backward pass spreads.

Shapes: N trained tokens, D width, V words of this process, R rank of a low-rank term; a tile is [C, W].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmfw.losses.logps_tiles import Tile

_MM_WIDENS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
"""Whether ``torch.mm`` has ``out_dtype`` (on GPUs)."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """The constants of a call of ``token_logps``."""

    softcap: float | None
    scale: float
    low_scale: float
    compute: torch.dtype
    """What states and weight are rounded to before they are multiplied."""
    rounded: bool
    """Whether autocast asks for that rounding (of a low-rank term's matrices too)."""
    tile: Tile
    kernel: str
    group: Any
    first: int
    """The whole vocabulary's number of this process's first word."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What the forward pass knows of each token, [N] each: enough to merge with another shard's."""

    top: Tensor
    """The largest logit."""
    total: Tensor
    """Sum of exp(logit - top)."""
    chosen: Tensor
    """The target's logit; 0 where another shard owns the target."""
    pull: Tensor | None = None
    """[N, D] sum of exp(logit - top) * slope * weight over the words other than the target, where asked for.
    """


class TiledHead:
    """Logits, and gradients of logits, tile by tile in one buffer.

    In full precision each product is one call. In half precision a GPU multiplies natively with float32
    results; elsewhere a block of the weight is widened once for all tokens, so that no float32 copy is ever
    whole.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None,
        low: tuple[Tensor, Tensor] | None,
        form: Form,
    ) -> None:
        self.weight, self.bias, self.form = weight, bias, form
        self.wide = torch.float64 if form.compute == torch.float64 else torch.float32
        self.native = _MM_WIDENS and weight.device.type == "cuda" and form.compute != self.wide
        self.tokens, self.vocabulary = hidden.shape[0], weight.shape[0]
        self.place = target - form.first
        self.owned = (self.place >= 0) & (self.place < self.vocabulary)
        self.states = self.narrow(hidden)
        self.low = None if low is None else (self.widen(low[0]), self.widen(low[1]))
        self.inner: Tensor | None = None
        if self.low is not None:
            self.inner = torch.mm(self.states.to(self.wide), self.low[0].t()).mul_(form.low_scale)

    def narrow(self, value: Tensor) -> Tensor:
        rounded = value.to(self.form.compute)
        return rounded if self.native else rounded.to(self.wide)

    def widen(self, value: Tensor) -> Tensor:
        return (value.to(self.form.compute) if self.form.rounded else value).to(self.wide)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        if self.native:
            return torch.mm(left, right, out_dtype=self.wide)
        return torch.mm(left, right)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """(words, [W, D] their rows of the weight), in order."""
        for start in range(0, self.vocabulary, self.form.tile.words):
            words = slice(start, min(start + self.form.tile.words, self.vocabulary))
            yield words, self.narrow(self.weight[words])

    def parts(self) -> Iterator[slice]:
        for start in range(0, self.tokens, self.form.tile.rows):
            yield slice(start, min(start + self.form.tile.rows, self.tokens))

    def buffer(self) -> Tensor:
        tile = Tile(rows=0, words=0) if self.native else self.form.tile
        size = min(tile.rows, self.tokens) * min(tile.words, self.vocabulary)
        return torch.empty(size, dtype=self.wide, device=self.states.device)

    def logits(self, part: slice, words: slice, block: Tensor, buffer: Tensor) -> Tensor:
        """[C, W], in ``buffer`` where products aren't native; the caller may overwrite them."""
        shape = (part.stop - part.start, words.stop - words.start)
        if self.native:
            logits = self.product(self.states[part], block.t())
        else:
            logits = buffer[: shape[0] * shape[1]].view(shape)
            torch.mm(self.states[part], block.t(), out=logits)
        if self.inner is not None and self.low is not None:
            logits.addmm_(self.inner[part], self.low[1][words].t())
        if self.bias is not None:
            logits.add_(self.bias[words])
        if self.form.scale != 1.0:
            logits.mul_(self.form.scale)
        if self.form.softcap is not None:
            logits.div_(self.form.softcap).tanh_().mul_(self.form.softcap)
        return logits

    def slope(self, logits: Tensor) -> Tensor | None:
        """[C, W] derivative of the cap at capped logits."""
        if self.form.softcap is None:
            return None
        return torch.div(logits, self.form.softcap).square_().neg_().add_(1.0)

    def targets(self, part: slice, words: slice) -> tuple[Tensor, Tensor]:
        """([C, 1] the target's column in the tile, [C, 1] whether it is in the tile at all)."""
        column = self.place[part, None] - words.start
        inside = (column >= 0) & (column < words.stop - words.start)
        return column.clamp(0, words.stop - words.start - 1), inside

    def scan(self, *, pull: bool) -> Sums:
        """One pass over all tiles with running maxima (online softmax)."""
        like: dict[str, Any] = {"dtype": self.wide, "device": self.states.device}
        # the lowest number, not -inf: a block of words that are all barred (-inf) must not make NaN
        top = torch.full((self.tokens,), torch.finfo(self.wide).min, **like)
        total, chosen = torch.zeros(self.tokens, **like), torch.zeros(self.tokens, **like)
        pulled = torch.zeros(self.tokens, self.states.shape[1], **like) if pull else None
        buffer = self.buffer()
        for words, block in self.blocks():
            for part in self.parts():
                logits = self.logits(part, words, block, buffer)
                column, inside = self.targets(part, words)
                chosen[part] += logits.gather(1, column).masked_fill_(~inside, 0.0)[:, 0]
                slope = self.slope(logits) if pull else None
                higher = torch.maximum(top[part], logits.amax(1))
                shrink = torch.exp(top[part] - higher)
                share = logits.sub_(higher[:, None]).exp_()
                total[part] = total[part] * shrink + share.sum(1)
                if pulled is not None:
                    share.scatter_(1, column, share.gather(1, column).masked_fill_(inside, 0.0))
                    if slope is not None:
                        share.mul_(slope)
                    pulled[part] *= shrink[:, None]
                    self.onto(pulled[part], share, block)
                top[part] = higher
        return Sums(top=top, total=total, chosen=chosen, pull=pulled)

    def flows(self, lse: Tensor, signal: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """(tokens, words, [W, D] block, [C, W] flow): softmax - onehot, times the cap's slope.

        Natively multiplied flows (half precision on a GPU) are times ``signal`` and rounded; others are not,
        since it's cheaper to multiply the [N, D] operands with it.
        """
        buffer = self.buffer()
        for words, block in self.blocks():
            for part in self.parts():
                logits = self.logits(part, words, block, buffer)
                slope = self.slope(logits)
                column, inside = self.targets(part, words)
                flow = logits.sub_(lse[part, None]).exp_()
                flow.scatter_add_(1, column, inside.to(self.wide).neg_())
                if slope is not None:
                    flow.mul_(slope)
                if self.native:
                    flow = flow.mul_(signal[part, None]).to(self.form.compute)
                yield part, words, block, flow

    def onto(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """total += left @ right."""
        if self.native:
            total += self.product(left.to(self.form.compute), right)
        else:
            total.addmm_(left, right)

    def at_target(self) -> Tensor:
        """[N, D] the targets' rows of the weight; 0 where another shard owns the target."""
        if not self.vocabulary:
            return torch.zeros(self.states.shape, dtype=self.wide, device=self.states.device)
        rows = self.weight.index_select(0, self.place.clamp(0, self.vocabulary - 1))
        return self.narrow(rows).to(self.wide).masked_fill_(~self.owned[:, None], 0.0)
