"""Preference pairs of token ids, the layouts they can be batched in, and a tiny real model for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from llmfw.core.batch import Batch, BatchKind

Layout = Literal["right", "left", "packed", "shared_prompt"]


@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and its two answers; every answer token is trained. An answer may be empty."""

    id: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def swapped(self) -> Pair:
        """The same with chosen and rejected exchanged."""
        return Pair(self.id, self.prompt, self.rejected, self.chosen)

    @property
    def cut(self) -> Pair:
        """Both answers cut to the shorter one's length."""
        shared = min(len(self.chosen), len(self.rejected))
        return Pair(self.id, self.prompt, self.chosen[:shared], self.rejected[:shared])


def random_pairs(
    lengths: Sequence[tuple[int, int, int]], *, vocabulary: int = 32, seed: int = 0
) -> list[Pair]:
    """One pair for each (prompt, chosen, rejected) length."""
    draw = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=draw).tolist())

    return [Pair(f"pair-{i}", ids(p), ids(c), ids(r)) for i, (p, c, r) in enumerate(lengths)]


@dataclass(frozen=True)
class Block:
    """Consecutive tokens of a row: their first position, the block of the row that they follow, the segment
    that they train (None: none).
    """

    ids: tuple[int, ...]
    first_position: int
    parent: int | None = None
    segment: int | None = None


def lay_out(
    pairs: Sequence[Pair], layout: Layout = "right", *, extra_columns: int = 0, pad_id: int = 0
) -> Batch:
    """The pairs as a batch: padded on a side, all packed in one row, or each prompt once before both answers.

    Segments are [all chosen; all rejected] and the trained tokens stand in the same order in each layout.
    """
    count = len(pairs)
    rows: list[list[Block]] = []
    if layout == "shared_prompt":
        for i, pair in enumerate(pairs):
            start = len(pair.prompt)
            rows.append(
                [
                    Block(pair.prompt, 0),
                    Block(pair.chosen, start, 0, i),
                    Block(pair.rejected, start, 0, count + i),
                ]
            )
    else:
        for side in (0, 1):
            for i, pair in enumerate(pairs):
                answer = pair.rejected if side else pair.chosen
                rows.append([Block(pair.prompt, 0), Block(answer, len(pair.prompt), 0, side * count + i)])
    if layout == "packed":
        rows = [joined(rows)]
    return build(
        rows,
        kind="preference",
        sample_ids=[pair.id for pair in pairs],
        left=layout == "left",
        extra_columns=extra_columns,
        pad_id=pad_id,
    )


def joined(rows: Sequence[Sequence[Block]]) -> list[Block]:
    """Rows of a prompt and its answer, one behind the other in one row; each sees itself alone."""
    found: list[Block] = []
    for row in rows:
        root = len(found)
        found += [row[0], Block(row[1].ids, row[1].first_position, root, row[1].segment)]
    return found


def build(
    rows: Sequence[Sequence[Block]],
    *,
    kind: BatchKind,
    sample_ids: Sequence[str],
    left: bool = False,
    extra_columns: int = 0,
    pad_id: int = 0,
    extra: Mapping[str, Tensor] | None = None,
) -> Batch:
    """A batch of rows of blocks; segments are numbered from 0 without a gap."""
    width = max(sum(len(block.ids) for block in row) for row in rows) + extra_columns
    input_ids = torch.full((len(rows), width), pad_id)
    position_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    sees = torch.zeros(len(rows), 1, width, width, dtype=torch.bool)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    tokens: dict[int, tuple[list[int], list[int]]] = {}
    for r, row in enumerate(rows):
        column = width - sum(len(block.ids) for block in row) if left else 0
        columns: list[range] = []
        for block in row:
            here = range(column, column + len(block.ids))
            columns.append(here)
            column = here.stop
            input_ids[r, here.start : here.stop] = torch.tensor(block.ids, dtype=torch.int64)
            position_ids[r, here.start : here.stop] = block.first_position + torch.arange(len(here))
            real[r, here.start : here.stop] = True
            before = [] if block.parent is None else list(columns[block.parent])
            for query in here:
                sees[r, 0, query, [*before, *range(here.start, query + 1)]] = True
            if block.segment is not None:
                predicting = [before[-1], *here][: len(here)] if here else []
                tokens[block.segment] = ([r * width + at for at in predicting], list(block.ids))
    simple = all(len(row) == 2 for row in rows)
    order = range(len(tokens))
    lengths = [len(tokens[segment][1]) for segment in order]
    return Batch(
        kind=kind,
        input_ids=input_ids,
        mask=real if simple else sees,
        position_ids=position_ids,
        source=_flat([tokens[segment][0] for segment in order]),
        target=_flat([tokens[segment][1] for segment in order]),
        segment=_flat([[segment] * lengths[segment] for segment in order]),
        position=_flat([list(range(1, lengths[segment] + 1)) for segment in order]),
        length=torch.tensor(lengths),
        sample_ids=tuple(sample_ids),
        extra=extra or {},
    )


def _flat(parts: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([value for part in parts for value in part], dtype=torch.int64)


def tiny_llama(
    *, vocabulary: int = 32, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any
) -> Any:
    """A two-layer Llama with random weights: 16 wide, 4 heads, 2 key-value heads, tied head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(LlamaConfig(**(settings | config)))
    return model.to(dtype).eval()
