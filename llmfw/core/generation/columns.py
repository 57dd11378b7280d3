"""Keys and values of a running batch, where rows that have ended give their place to waiting prompts.

All rows end at the same column, a row of n tokens begins n columns before it. Behind the last column stand
spare ones, so that a step writes one column where transformers' own cache copies all of them.

Shapes: B rows, H heads, C columns with the spare ones, D width of a head, U different prompts, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

SPARE = 128
"""Columns that stand ready: all are copied once in so many steps, and a row holds so many for nothing."""


class ColumnsLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # of __init_subclass__
    """One layer's buffers [B, H, C, D]; ``keys`` and ``values`` show the columns ``begin`` to ``end``."""

    def __init__(self, rows: int, spare: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.spare = rows, spare
        self.begin = self.end = 0
        self.buffers: tuple[Tensor, ...] = ()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes the next tokens of all rows, [B, H, T, D], and returns what every row holds by now."""
        stop = self.end + key_states.shape[-2]
        if stop > self.buffers[0].shape[-2]:
            self.move(self.end - self.begin)
            stop = self.end + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.end : stop] = states
        return self.show(self.begin, stop)

    def show(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Sets which columns are in use."""
        self.begin, self.end = begin, end
        self.keys, self.values = (buffer[:, :, begin:end] for buffer in self.buffers)
        return self.keys, self.values

    def make_room(self, width: int, like: tuple[Tensor, Tensor]) -> None:
        """``width`` columns up to the last one; the first call makes buffers for states as in ``like``."""
        if not self.buffers:
            self.lazy_initialization(*like)
            # zeros: attention multiplies what it masks by 0, which takes no NaN away
            self.buffers = tuple(
                states.new_zeros(self.rows, states.shape[1], width + self.spare, states.shape[-1])
                for states in like
            )
            self.show(width, width)
        elif self.end < width:
            self.move(width)

    def move(self, width: int, keep: Tensor | None = None) -> None:
        """Into new buffers of ``width`` columns and the spare ones, with these rows (None: all)."""
        held, moved = self.end - self.begin, []
        for buffer in self.buffers:
            old = buffer[:, :, self.begin : self.end]
            old = old if keep is None else old[keep]
            new = buffer.new_zeros(*old.shape[:2], width + self.spare, old.shape[-1])
            new[:, :, width - held : width] = old
            moved.append(new)
        self.buffers = tuple(moved)
        self.show(width - held, width)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows."""
        self.rows = len(indices)
        if self.buffers:
            self.move(self.end - self.begin, indices)


class _Reading(DynamicLayer):  # type: ignore[no-untyped-call]
    """Reads prompts straight into rows of a layer, so that nothing is held twice."""

    def __init__(self, layer: ColumnsLayer, into: Tensor, prompt: Tensor, first: Tensor, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer, self.into, self.prompt, self.first, self.width = layer, into, prompt, first, width
        self.seen = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.layer.make_room(self.width, (key_states, value_states))
        begin = self.layer.end - self.width
        start, stop = begin + self.seen, begin + self.seen + key_states.shape[-2]
        for buffer, states in zip(self.layer.buffers, (key_states, value_states), strict=True):
            if not self.seen:
                buffer[self.into, :, :begin] = 0  # a NaN of the row that stood here would spread
            buffer[self.into, :, start:stop] = states[self.prompt]
        self.layer.show(min(begin, self.layer.begin), self.layer.end)
        self.seen += key_states.shape[-2]
        keys, values = (buffer[self.first, :, begin:stop] for buffer in self.layer.buffers)
        return keys, values

    def get_seq_length(self) -> int:
        return self.seen


class Columns(Cache):
    """The cache of a running batch."""

    def __init__(self, layers: int, rows: int, spare: int) -> None:
        self.columns = [ColumnsLayer(rows, spare) for _ in range(layers)]
        super().__init__(layers=list(self.columns))

    def reading(self, into: Sequence[int], prompt: Sequence[int], width: int, device: torch.device) -> Cache:
        """A cache through which U padded prompts [U, width] are read.

        Args:
            into: the rows that they are written to; what these held is lost.
            prompt: which of the prompts each of these rows gets, all of them in rising order.
        """
        first = torch.tensor([into[prompt.index(number)] for number in range(max(prompt) + 1)], device=device)
        rows, of = torch.tensor(into, device=device), torch.tensor(prompt, device=device)
        return Cache(layers=[_Reading(layer, rows, of, first, width) for layer in self.columns])

    def repeat(self, row: int, held: int, length: int, into: Sequence[int]) -> None:
        """Writes the first ``length`` of the ``held`` columns of a row to other rows (or to itself)."""
        for layer in self.columns:
            start, begin = layer.end - held, layer.end - length
            assert start >= layer.begin, "the row's first columns are gone"
            for buffer in layer.buffers:
                copy = buffer[row, :, start : start + length].clone()
                buffer[into, :, :begin] = 0
                buffer[into, :, begin : layer.end] = copy

    def trim(self, width: int) -> None:
        """Leaves columns out that come before the last ``width``: no row uses them any more."""
        for layer in self.columns:
            if layer.buffers:
                layer.show(layer.end - width, layer.end)
