"""What a loss sees: token rows plus, laid end to end, the tokens that are trained.

Shapes: B rows, T positions in a row, N trained tokens in the whole batch, S segments (one per completion),
E rows and Te positions of an encoder's side.
A layout (padded, packed, shared prompt) differs in ``input_ids``, ``attention_mask`` and ``position_ids``
only; ``source``, ``target``, ``segment`` and ``position`` mean the same in each, so a loss is written once.
Of an encoder-decoder they all speak of the decoder's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

BatchKind = Literal["text", "preference", "scored"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch.

    Segments of a ``preference`` batch are ordered [all chosen; all rejected]: pair p owns segments p and S/2
    + p.
    """

    kind: BatchKind
    input_ids: Tensor
    """[B, T] int64."""
    attention_mask: Tensor
    """[B, T] bool, True where a token stands; or [B, 1, T, T] bool, True where query (row) may attend to key
    (column).
    """
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
        """Tokens that are not padding (of a 4-D mask: rows that attend to something), the encoder's too."""
        return int(self.count_real())

    def count_real(self) -> Tensor:
        """``real_tokens`` as a tensor, so that nothing waits for the device."""
        mask = self.attention_mask if self.attention_mask.dim() == 2 else self.attention_mask[:, 0].any(-1)
        return mask.sum() if self.encoder_mask is None else mask.sum() + self.encoder_mask.sum()

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
