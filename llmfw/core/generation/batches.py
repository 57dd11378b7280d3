"""The model's side of a batch: prompts are read, every row gets its next token, rows leave and join.

Shapes: B rows, U different prompts among them, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from llmfw.core.generation.caches import FULL_CACHE, ForwardNames, prefill
from llmfw.core.generation.columns import SPARE, Columns
from llmfw.core.generation.encoder import EncoderSide, build_cache
from llmfw.core.generation.rows import Row
from llmfw.core.records import CacheFactory


class FixedBatch:
    """Rows that are read together, over a cache of any kind; none joins them later.

    Args:
        shared: a prompt with several answers is read once and its rows are copied, if the cache can do that.
        batch_keys: what the model wants to be told in the first forward pass: ``prompt_length``, or nothing.
    """

    def __init__(
        self,
        module: nn.Module,
        names: ForwardNames,
        pad: int,
        factory: CacheFactory,
        config: Any,
        *,
        shared: bool,
        batch_keys: Sequence[str] = (),
    ) -> None:
        self.module, self.names, self.pad = module, names, pad
        self.factory, self.batch_keys = factory, batch_keys
        self.device = next(module.parameters()).device
        self.past = factory.build(config)
        self.shared = shared and self._selects()
        self.rows: list[Row] = []
        self.logits = self.held = self.last = torch.empty(0)
        self.width, self.padded = 0, False

    def read(self, joining: Mapping[int, Row]) -> None:
        """All rows, once."""
        self.rows = list(joining.values())
        prompts, of = _different(self.rows, self.shared)
        self.logits = self._read(self.past, prompts)
        if self.factory.after_prefill is not None:
            self.factory.after_prefill(self.past)
        if len(prompts) < len(self.rows):
            copies = torch.tensor(of, device=self.device)
            self.past.batch_select_indices(copies)
            self.logits = self.logits[copies]
        self.width = max(row.columns for row in self.rows)
        # without padding no mask at all: kernels are then free to skip it, and custom caches never see one
        self.padded = any(row.columns < self.width for row in self.rows)
        self._number()

    def step(self, chosen: Tensor) -> None:
        """The rows' next tokens are read, also those of rows that have ended."""
        arguments: dict[str, Any] = {self.names.cache: self.past, "use_cache": True}
        if self.names.positions:
            arguments["position_ids"] = self.held[:, None]
        self.width += 1
        if self.padded:
            from_the_end = torch.arange(self.width, 0, -1, device=self.device)
            arguments["attention_mask"] = from_the_end <= self.held[:, None] + 1
        chosen = chosen.to(self.device)
        self.logits = self.module(input_ids=chosen[:, None], **arguments).logits[:, -1]
        self.held = torch.minimum(self.held + 1, self.last)
        for row in self.rows:
            row.columns += 1

    def keep(self, places: list[int]) -> bool:
        """Lets go of all other rows."""
        if not self._selects():
            return False
        kept = torch.tensor(places, device=self.device)
        self.past.batch_select_indices(kept)
        self.rows = [self.rows[place] for place in places]
        self.held, self.last = self.held[kept], self.last[kept]
        return True

    def _read(self, past: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
        """[U, V] logits after the prompts, padded on the left."""
        lengths = torch.tensor([len(ids) for ids in prompts], device=self.device)
        width = max(map(len, prompts))
        ids = torch.tensor([[*[self.pad] * (width - len(ids)), *ids] for ids in prompts], device=self.device)
        mask = None
        if min(map(len, prompts)) < width:
            mask = torch.arange(width, 0, -1, device=self.device) <= lengths[:, None]
        extra = {"prompt_length": lengths} if "prompt_length" in self.batch_keys else None
        return prefill(self.module, past, ids, chunk=self.factory.prefill_chunk, mask=mask, extra=extra)

    def _selects(self) -> bool:
        # a layer with a recurrent state inherits a method that forgets that state
        layers = getattr(self.past, "layers", [None])
        return all(
            hasattr(layer, "batch_select_indices") and not isinstance(layer, LinearAttentionCacheLayerMixin)
            for layer in layers
        )

    def _number(self) -> None:
        """[B] tokens that each row holds (the next one's position), and the last position of its answer."""
        last = [len(row.request.ids) + row.request.limit - 1 for row in self.rows]
        # rows that have ended go on beside the others: they must not leave the model's context
        held = [min(row.columns, end) for row, end in zip(self.rows, last, strict=True)]
        self.held, self.last = torch.tensor([held, last], device=self.device)


class RunningBatch(FixedBatch):
    """Rows of full attention: prompts join where others have ended. Prompts come longest first."""

    def __init__(
        self, module: nn.Module, names: ForwardNames, pad: int, *, layers: int, size: int, longest: int,
        chunk: int | None,
    ) -> None:  # fmt: skip
        self.past: Columns
        factory = CacheFactory(
            name="columns", build=lambda _: Columns(layers, size, min(SPARE, longest)), prefill_chunk=chunk
        )
        super().__init__(module, names, pad, factory, None, shared=True)
        self.newest: list[int] = []
        """The prompt that was read last: more of its samples may be waiting."""
        self.first = torch.empty(0)
        """[V] logits after it."""

    def read(self, joining: Mapping[int, Row]) -> None:
        """A prompt that a row holds already is copied from there, the others are read."""
        again = [place for place, row in joining.items() if row.request.ids == self.newest]
        if again:
            columns, source = min(
                (row.columns, place) for place, row in enumerate(self.rows) if row.request.ids == self.newest
            )
            self.past.repeat(source, columns, len(self.newest), again)
        logits = dict.fromkeys(again, self.first)
        fresh = [place for place in joining if place not in logits]
        if fresh:
            prompts, of = _different([joining[place] for place in fresh], self.shared)
            found = self._read(self.past.reading(fresh, of, max(map(len, prompts)), self.device), prompts)
            self.newest, self.first = prompts[-1], found[-1].clone()
            logits |= {place: found[number] for place, number in zip(fresh, of, strict=True)}
        places, new = torch.tensor(list(logits), device=self.device), torch.stack(list(logits.values()))
        if self.rows:
            self.logits = self.logits.index_copy(0, places, new)
        else:
            self.rows, self.logits = list(joining.values()), new
        for place, row in joining.items():
            self.rows[place] = row
        self._number()

    def step(self, chosen: Tensor) -> None:
        """Columns that no living row needs are let go first."""
        columns = [row.columns for row in self.rows if not row.ended]
        self.width, self.padded = max(columns), min(columns) < max(columns)
        self.past.trim(self.width)
        super().step(chosen)


class EncoderBatch:
    """Rows of an encoder-decoder: the encoder reads the prompts, the decoder's openings have one length."""

    def __init__(self, module: nn.Module, pad: int) -> None:
        self.module, self.pad, self.past = module, pad, build_cache()
        self.device = next(module.parameters()).device
        self.rows: list[Row] = []
        self.logits = torch.empty(0)

    def read(self, joining: Mapping[int, Row]) -> None:
        """All rows, once."""
        self.rows = list(joining.values())
        self.side = EncoderSide(self.module, [row.request.encoder for row in self.rows], self.pad)
        self._decode(torch.tensor([row.request.ids for row in self.rows], device=self.device))

    def step(self, chosen: Tensor) -> None:
        """The decoder's next tokens."""
        self._decode(chosen.to(self.device)[:, None])

    def keep(self, places: list[int]) -> bool:
        """Lets go of all other rows."""
        kept = torch.tensor(places, device=self.device)
        self.past.batch_select_indices(kept)
        self.side.select(kept)
        self.rows = [self.rows[place] for place in places]
        return True

    def _decode(self, ids: Tensor) -> None:
        self.logits = self.module(
            decoder_input_ids=ids, past_key_values=self.past, use_cache=True, **self.side.arguments()
        ).logits[:, -1]


def full_layers(config: Any) -> int | None:
    """Layers of a model that all keep every key and value and nothing else; None where some don't."""
    layers = FULL_CACHE.build(config).layers
    return len(layers) if layers and all(type(layer) is DynamicLayer for layer in layers) else None


def _different(rows: Sequence[Row], shared: bool) -> tuple[list[list[int]], list[int]]:
    """The prompts to be read, and which of them each row has."""
    if not shared:
        return [row.request.ids for row in rows], list(range(len(rows)))
    numbers: dict[tuple[int, ...], int] = {}
    of = [numbers.setdefault(tuple(row.request.ids), len(numbers)) for row in rows]
    return [list(ids) for ids in numbers], of
