"""What a loss sees: token rows plus, laid end to end, the tokens that are trained.

Shapes: B rows, T positions in a row, N trained tokens in the whole batch, S segments (one per completion),
E rows and Te positions of an encoder's side.
A layout (padded, packed, shared prompt) differs in ``input_ids``, ``position_ids`` and in who sees whom
(``mask`` or ``spans``) only; ``source``, ``target``, ``segment`` and ``position`` mean the same in each, so a
loss is written once.
Of an encoder-decoder they all speak of the decoder's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

BatchKind = Literal["text", "preference", "scored"]
Layout = Literal["padded", "packed", "shared_prompt"]
"""How samples lie in a batch: a row each, filled up on the right; or all in one row without padding, in which
each sees itself alone; or so, with the prompt of a pair standing once before its two answers.
"""


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of a row that see each other causally, and all tokens of the spans before them in
    their line: ``parent``, its parent and so on (None: a line begins here).
    """

    start: int
    stop: int
    parent: int | None = None

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Who sees whom in one row without padding: every token is in exactly one span, spans in order.

    A span's position ids go on where its parent's end. Lengths and bounds are numbers of the host, so that
    nothing waits for a device.
    """

    spans: tuple[Span, ...]
    tokens: int
    """Tokens of all samples as if each stood alone: a shared prompt counts once an answer."""

    def line(self, index: int) -> tuple[int, ...]:
        """The spans that span ``index`` sees, first to last, itself included."""
        found = [index]
        while (parent := self.spans[found[-1]].parent) is not None:
            found.append(parent)
        return tuple(reversed(found))

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """[1, 1, T, T] bool, True where query (row) may attend to key (column)."""
        total = self.spans[-1].stop if self.spans else 0
        sees = torch.zeros(total, total, dtype=torch.bool)
        for index, span in enumerate(self.spans):
            for other in self.line(index)[:-1]:
                sees[span.start : span.stop, self.spans[other].start : self.spans[other].stop] = True
            own = sees[span.start : span.stop, span.start : span.stop]
            own |= torch.ones(len(span), len(span), dtype=torch.bool).tril()
        return sees[None, None].to(device)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch.

    Segments of a ``preference`` batch are ordered [all chosen; all rejected]: pair p owns segments p and S/2
    + p.
    """

    kind: BatchKind
    input_ids: Tensor
    """[B, T] int64."""
    mask: Tensor | None = None
    """[B, T] bool, True where a token stands; or [B, 1, T, T] bool, True where query (row) may attend to key
    (column); None: ``spans`` says it.
    """
    spans: Spans | None = None
    """Who sees whom in a single row without padding; None: ``mask`` says it."""
    position_ids: Tensor
    """[B, T] int64."""
    source: Tensor
    """[N] int64: index into the flattened [B*T] positions whose hidden state predicts the trained token."""
    target: Tensor
    """[N] int64: id of the trained token."""
    segment: Tensor
    """[N] int64: which completion the token belongs to, non-decreasing."""
    position: Tensor
    """[N] int64: 1-based index of the token among the trained tokens of its segment."""
    length: Tensor
    """[S] int64: trained tokens of each segment; may be 0."""
    sample_ids: tuple[str, ...]
    """One id per sample (per pair in a preference batch)."""
    encoder_ids: Tensor | None = None
    """[E, Te] int64: what an encoder reads, padded on the right; None: the model has none."""
    encoder_mask: Tensor | None = None
    """[E, Te] bool, True where a token stands."""
    encoder_row: Tensor | None = None
    """[B] int64: the encoder row that each decoder row attends to; a pair's two answers share one."""
    reference_logps: Tensor | None = None
    """[N] float32 log-probs of the reference model, where a cache holds them."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Further tensors by name (rewards, prompt_length, ...): [samples] or [S]; surgeries name those that the
    model receives.
    """

    def __post_init__(self) -> None:
        if (self.mask is None) == (self.spans is None):
            raise ValueError("a batch has a mask or spans: one of them")

    @property
    def attention_mask(self) -> Tensor:
        """``mask``; of a batch with spans the [1, 1, T, T] mask that says the same, made when asked for.

        It grows with the square of the row: ``Policy.logps`` does without it.
        """
        if self.mask is not None:
            return self.mask
        assert self.spans is not None
        return self.spans.mask(self.input_ids.device)

    @property
    def token_mask(self) -> Tensor:
        """[B, T] bool, True where a token stands that is no padding."""
        if self.mask is None:
            return torch.ones_like(self.input_ids, dtype=torch.bool)
        return self.mask if self.mask.dim() == 2 else self.mask[:, 0].any(-1)

    @property
    def tokens(self) -> int:
        """Number of trained tokens, N."""
        return int(self.target.shape[0])

    @property
    def segments(self) -> int:
        """Number of completions, S."""
        return int(self.length.shape[0])

    @property
    def real_tokens(self) -> int:
        """Tokens of the samples, padding not counted, the encoder's too; the same in every layout."""
        return int(self.count_real())

    def count_real(self) -> Tensor:
        """``real_tokens`` as a tensor, so that nothing waits for the device."""
        if self.spans is not None:
            return torch.tensor(self.spans.tokens)
        real = self.token_mask.sum()
        return real if self.encoder_mask is None else real + self.encoder_mask.sum()

    def _map(self, change: object) -> Batch:
        new: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                new[item.name] = change(value)  # type: ignore[operator]
        new["extra"] = {name: change(value) for name, value in self.extra.items()}  # type: ignore[operator]
        return replace(self, **new)  # type: ignore[arg-type]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """A loss's answer for one micro-batch.

    ``total`` is a **sum** over the loss's units (tokens, sequences or pairs); the core divides by their
    number in the whole optimizer step, over micro-batches and ranks, so that accumulation changes nothing.
    ``metrics`` maps a name to (sum, count), averaged in the same way; ``details`` holds per-unit tensors for
    metrics.
    """

    total: Tensor
    metrics: Mapping[str, tuple[Tensor | float, Tensor | float]] = field(default_factory=dict)
    details: Mapping[str, Tensor] = field(default_factory=dict)
