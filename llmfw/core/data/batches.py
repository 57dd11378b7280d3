"""The one place where a Batch is built.

Shapes: B rows, T positions, N trained tokens, S segments (``llmfw.core.batch``). Rows are padded on the
right.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmfw.core.batch import Batch, Layout, Span, Spans
from llmfw.core.data.examples import Example, TokenSequence


def collate(
    examples: Sequence[Example], pad_id: int, *, layout: Layout = "padded", pad_to_multiple: int = 1
) -> Batch:
    """The batch of these examples, all of one kind.

    ``padded``: a row a sequence, a preference batch [all chosen; all rejected]. ``packed``: all in one row,
    each sample a span of its own whose position ids begin anew. ``shared_prompt``: so, and what the two
    sides of a pair have in common before their first trained token stands once, before both. Packed units
    (``llmfw.core.data.pack``) have no other layout than ``packed``. Trained tokens stand in the same order
    in all: by side, then by example.
    """
    kinds = {(example.kind, example.packed) for example in examples}
    if len(kinds) != 1:
        raise ValueError(f"a batch needs examples of one kind; got {sorted(kinds)}")
    ((kind, packed),) = kinds
    if packed:
        sequences = [sequence for example in examples for sequence in example.sequences]
    else:
        sides = range(len(examples[0].sequences))
        sequences = [example.sequences[side] for side in sides for example in examples]
    encoder_ids, encoder_mask, encoder_row = _encoder_side(sequences, pad_id, pad_to_multiple)
    if packed or layout != "padded":
        if encoder_ids is not None:
            raise ValueError("rows of an encoder-decoder can't be packed")
        shared = layout == "shared_prompt" and kind == "preference"
        laid = _in_one_row(sequences, len(examples) if shared else 0)
    else:
        laid = _row_each(sequences, pad_id, pad_to_multiple)
    counts = [sum(one.trained) for one in sequences]
    return Batch(
        kind=kind,
        input_ids=laid.ids,
        mask=laid.mask,
        spans=laid.spans,
        position_ids=laid.positions,
        source=torch.cat(laid.source),
        target=torch.cat(laid.target),
        segment=torch.cat([torch.full((count,), index) for index, count in enumerate(counts)]),
        position=torch.cat([torch.arange(1, count + 1) for count in counts]),
        length=torch.tensor(counts),
        sample_ids=tuple(name for example in examples for name in example.sample_ids),
        encoder_ids=encoder_ids,
        encoder_mask=encoder_mask,
        encoder_row=encoder_row,
        extra=_extra(examples, packed),
    )


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """Where sequences came to lie; ``source`` and ``target`` are those of each sequence."""

    ids: Tensor
    positions: Tensor
    source: list[Tensor]
    target: list[Tensor]
    mask: Tensor | None = None
    spans: Spans | None = None


def _row_each(sequences: Sequence[TokenSequence], pad_id: int, multiple: int) -> _Laid:
    width = max(map(len, sequences))
    width += -width % multiple
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.int64)
    positions = torch.zeros((len(sequences), width), dtype=torch.int64)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    source, target = list[Tensor](), list[Tensor]()
    for row, sequence in enumerate(sequences):
        count = len(sequence)
        own = _ints(sequence.ids)
        ids[row, :count], positions[row, :count], mask[row, :count] = own, torch.arange(count), True
        trained = _trained(sequence)
        source.append(trained + (row * width - 1))
        target.append(own[trained])
    return _Laid(ids=ids, positions=positions, source=source, target=target, mask=mask)


def _in_one_row(sequences: Sequence[TokenSequence], pairs: int) -> _Laid:
    """All behind one another; where ``pairs`` isn't 0, sequence ``pairs + p`` takes its beginning from
    sequence ``p``'s.
    """
    ids, positions, spans = list[Tensor](), list[Tensor](), list[Span]()
    source: list[Tensor] = [torch.empty(0)] * len(sequences)
    target: list[Tensor] = [torch.empty(0)] * len(sequences)
    end = 0

    def lay(index: int, skip: int = 0, parent: int | None = None, until: int | None = None) -> None:
        """Put tokens ``skip`` to ``until`` of a sequence at the row's end, as a span."""
        nonlocal end
        stop = len(sequences[index]) if until is None else until
        if stop == skip:
            return
        ids.append(_ints(sequences[index].ids[skip:stop]))
        positions.append(torch.arange(skip, stop))
        spans.append(Span(end, end + stop - skip, parent))
        end += stop - skip

    def train(index: int, begin: int, shared: int, begin_shared: int) -> None:
        """Note a sequence's trained tokens: its first ``shared`` ones stand from ``begin_shared`` on, the
        others from ``begin`` on.
        """
        trained = _trained(sequences[index])
        before = trained - 1
        source[index] = torch.where(before < shared, before + begin_shared, before - shared + begin)
        target[index] = _ints(sequences[index].ids)[trained]

    for index in range(pairs or len(sequences)):
        first = end
        shared = common_prompt(sequences[index], sequences[pairs + index]) if pairs else 0
        if not shared:
            lay(index)
            train(index, first, 0, 0)
            if pairs:
                train(pairs + index, end, 0, 0)
                lay(pairs + index)
            continue
        lay(index, until=shared)
        root = len(spans) - 1
        for member in (index, pairs + index):
            train(member, end, shared, first)
            lay(member, skip=shared, parent=root)
    return _Laid(
        ids=torch.cat(ids)[None],
        positions=torch.cat(positions)[None],
        source=source,
        target=target,
        spans=Spans(spans=tuple(spans), tokens=sum(map(len, sequences))),
    )


def common_prompt(one: TokenSequence, other: TokenSequence) -> int:
    """Tokens that two sequences begin with alike and that neither trains."""
    count = 0
    for a, b, trained, too in zip(one.ids, other.ids, one.trained, other.trained, strict=False):
        if a != b or trained or too:
            break
        count += 1
    return count


def _trained(sequence: TokenSequence) -> Tensor:
    """Places of the trained tokens in a sequence, ascending."""
    return torch.frombuffer(bytearray(sequence.trained), dtype=torch.bool).nonzero()[:, 0]


def _ints(values: Sequence[int]) -> Tensor:
    """[n] int64 of at least one number."""
    return torch.frombuffer(array("q", values), dtype=torch.int64)


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
    sequences: Sequence[TokenSequence], pad_id: int, multiple: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """([E, Te] ids, [E, Te] mask, [B] encoder row of each row), or three None for a decoder-only model.

    Rows that read the same tokens share an encoder row: a pair's prompt is encoded once.
    """
    texts = [sequence.encoder for sequence in sequences]
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
        ids[index, : len(text)] = _ints(text)
        mask[index, : len(text)] = True
    return ids, mask, torch.tensor([place[text] for text in texts], dtype=torch.int64)


def _extra(examples: Sequence[Example], packed: bool) -> dict[str, Tensor]:
    """[S] for what an example says per sequence, [samples] for what it says once, [N] for what it says per
    trained token; the names must be the same in all.
    """
    names = {tuple(sorted(example.extra)) for example in examples}
    if len(names) != 1:
        raise ValueError(f"examples of one batch carry different extras: {sorted(names)}")
    extra: dict[str, Tensor] = {}
    for name in names.pop():
        values: list[Any] = []
        per_example = [example.extra[name] for example in examples]
        if packed:
            for value in per_example:
                values += value if isinstance(value, tuple) else [value]
        elif isinstance(per_example[0], tuple):
            sides = [value if isinstance(value, tuple) else (value,) for value in per_example]
            values = [value[side] for side in range(len(sides[0])) for value in sides]
        else:
            values = [value for value in per_example if not isinstance(value, tuple)]
        if values and isinstance(values[0], tuple):
            values = [number for each in values for number in each]
        whole = all(isinstance(value, int) for value in values)
        extra[name] = torch.tensor(values, dtype=torch.int64 if whole else torch.float32)
    return extra
