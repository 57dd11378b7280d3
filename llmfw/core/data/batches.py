"""The one place where a Batch is built.

Shapes: B rows, T positions, N trained tokens, S segments (``llmfw.core.batch``). Rows are padded on the
right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.data.examples import Example, Number, TokenSequence


def collate(examples: Sequence[Example], pad_id: int, *, pad_to_multiple: int = 1) -> Batch:
    """The batch of these examples, all of one kind.

    A preference batch has the rows [all chosen; all rejected]; a packed unit is one row with several
    segments, its position ids restart with each and its mask is [B, 1, T, T], block-diagonal and causal.
    """
    kinds = {(example.kind, example.packed) for example in examples}
    if len(kinds) != 1:
        raise ValueError(f"a batch needs examples of one kind; got {sorted(kinds)}")
    ((kind, packed),) = kinds
    if packed:
        rows = [list(example.sequences) for example in examples]
    else:
        rows = [
            [example.sequences[side]] for side in range(len(examples[0].sequences)) for example in examples
        ]
    width = max(sum(map(len, row)) for row in rows)
    width += -width % pad_to_multiple
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    position_ids = torch.zeros((len(rows), width), dtype=torch.int64)
    owner = torch.full(
        (len(rows), width), -1, dtype=torch.int64
    )  # which segment stands at a position, -1: padding
    source: list[int] = []
    target: list[int] = []
    segment: list[int] = []
    position: list[int] = []
    length: list[int] = []
    for row, members in enumerate(rows):
        start = 0
        for member in members:
            stop = start + len(member)
            input_ids[row, start:stop] = torch.tensor(member.ids)
            position_ids[row, start:stop] = torch.arange(len(member))
            owner[row, start:stop] = len(length)
            at = [index for index, flag in enumerate(member.trained) if flag]
            source += [row * width + start + index - 1 for index in at]
            target += [member.ids[index] for index in at]
            segment += [len(length)] * len(at)
            position += range(1, len(at) + 1)
            length.append(len(at))
            start = stop
    encoder_ids, encoder_mask, encoder_row = _encoder_side(rows, pad_id, pad_to_multiple)
    return Batch(
        kind=kind,
        input_ids=input_ids,
        attention_mask=_block_diagonal(owner) if packed else owner >= 0,
        position_ids=position_ids,
        source=torch.tensor(source, dtype=torch.int64),
        target=torch.tensor(target, dtype=torch.int64),
        segment=torch.tensor(segment, dtype=torch.int64),
        position=torch.tensor(position, dtype=torch.int64),
        length=torch.tensor(length, dtype=torch.int64),
        sample_ids=tuple(name for example in examples for name in example.sample_ids),
        encoder_ids=encoder_ids,
        encoder_mask=encoder_mask,
        encoder_row=encoder_row,
        extra=_extra(examples, packed),
    )


def shadow(example: Example, pad_id: int) -> Batch:
    """A batch that trains nothing: one row, no trained token, no segment, no sample.

    It keeps the processes of a distributed step in lockstep where there are fewer samples than processes: the
    forward and backward pass run, and add zeros.
    """
    sequence = example.sequences[0]
    empty = TokenSequence(sequence.ids, (False,) * len(sequence), sequence.encoder)
    batch = collate([Example(id=example.id, kind="text", sequences=(empty,))], pad_id)
    none = torch.zeros(0, dtype=torch.int64)
    extra = {name: value[:1] for name, value in _extra([example], example.packed).items()}
    return replace(batch, kind=example.kind, length=none, sample_ids=(), extra=extra)


def _encoder_side(
    rows: Sequence[Sequence[TokenSequence]], pad_id: int, multiple: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """([E, Te] ids, [E, Te] mask, [B] encoder row of each row), or three None for a decoder-only model.

    Rows that read the same tokens share an encoder row: a pair's prompt is encoded once.
    """
    texts = [members[0].encoder for members in rows]
    if not any(texts):
        return None, None, None
    if not all(texts):
        raise ValueError("some rows of the batch have an encoder's side, others none")
    place = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    width = max(map(len, texts))
    width += -width % multiple
    ids = torch.full((len(place), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(place), width), dtype=torch.bool)
    for text, index in place.items():
        ids[index, : len(text)] = torch.tensor(text)
        mask[index, : len(text)] = True
    return ids, mask, torch.tensor([place[text] for text in texts], dtype=torch.int64)


def _block_diagonal(owner: Tensor) -> Tensor:
    """[B, 1, T, T] bool from the [B, T] segment at each position: same segment, and the key not after the
    query.
    """
    causal = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    same = (owner[:, :, None] == owner[:, None, :]) & (owner >= 0)[:, :, None]
    return (same & causal)[:, None]


def _extra(examples: Sequence[Example], packed: bool) -> dict[str, Tensor]:
    """[S] for what an example says per sequence, [samples] for what it says once; the names must be the same
    in all.
    """
    names = {tuple(sorted(example.extra)) for example in examples}
    if len(names) != 1:
        raise ValueError(f"examples of one batch carry different extras: {sorted(names)}")
    extra: dict[str, Tensor] = {}
    for name in names.pop():
        values: list[Number] = []
        per_example = [example.extra[name] for example in examples]
        if packed:
            for value in per_example:
                values += value if isinstance(value, tuple) else [value]
        elif isinstance(per_example[0], tuple):
            sides = [value if isinstance(value, tuple) else (value,) for value in per_example]
            values = [value[side] for side in range(len(sides[0])) for value in sides]
        else:
            values = [value for value in per_example if not isinstance(value, tuple)]
        whole = all(isinstance(value, int) for value in values)
        extra[name] = torch.tensor(values, dtype=torch.int64 if whole else torch.float32)
    return extra
