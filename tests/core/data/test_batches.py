"""A batch says the same in every layout: what is trained, from which position, in which segment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.batch import Span, Spans
from llmfw.core.data import Example, TokenSequence, collate, pack, shadow

PAD = 99


def _sequence(ids: list[int], trained: list[bool]) -> TokenSequence:
    return TokenSequence(tuple(ids), (False, *trained[1:]))


SEQUENCES = st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=9).map(
    lambda tokens: _sequence([token for token, _ in tokens], [flag for _, flag in tokens])
)


def _example(name: str, sequences: tuple[TokenSequence, ...]) -> Example:
    kind: Any = "preference" if len(sequences) == 2 else "text"
    lengths = tuple(len(sequence) for sequence in sequences)
    return Example(
        id=name, kind=kind, sequences=sequences, extra={"width": lengths, "weight": float(len(name))}
    )


def _check(batch: Any, segments: list[TokenSequence]) -> None:
    """Every trained token stands right after its source, in order, numbered from 1 within its segment."""
    flat = batch.input_ids.flatten()
    assert torch.equal(flat[batch.source + 1], batch.target)
    assert batch.length.tolist() == [sum(sequence.trained) for sequence in segments]
    at = 0
    for number, sequence in enumerate(segments):
        count = sum(sequence.trained)
        piece = slice(at, at + count)
        assert batch.target[piece].tolist() == list(sequence.trained_ids)
        assert batch.segment[piece].tolist() == [number] * count
        assert batch.position[piece].tolist() == list(range(1, count + 1))
        # position ids at the sources are those of the tokens before: nothing of another segment lies between
        before = [index - 1 for index, flag in enumerate(sequence.trained) if flag]
        assert batch.position_ids.flatten()[batch.source[piece]].tolist() == before
        at += count
    assert at == batch.tokens and batch.real_tokens == sum(map(len, segments))


def test_a_pair_worked_out_by_hand() -> None:
    """Rows [5 6 7 8] (7, 8 trained) and [5 6 9] (9 trained), padded to T=4: sources 1, 2 and 4+1=5."""
    chosen = TokenSequence((5, 6, 7, 8), (False, False, True, True))
    rejected = TokenSequence((5, 6, 9), (False, False, True))
    pair = Example(id="p", kind="preference", sequences=(chosen, rejected), extra={"prompt_length": (2, 2)})
    batch = collate([pair], PAD)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [5, 6, 9, PAD]]
    assert batch.attention_mask.tolist() == [[True] * 4, [True, True, True, False]]
    assert batch.source.tolist() == [1, 2, 5] and batch.target.tolist() == [7, 8, 9]
    assert batch.segment.tolist() == [0, 0, 1] and batch.position.tolist() == [1, 2, 1]
    assert batch.length.tolist() == [2, 1] and batch.sample_ids == ("p",)
    assert batch.extra["prompt_length"].tolist() == [2, 2]


def test_a_shared_prompt_worked_out_by_hand() -> None:
    """[5 6 | 7 8 | 9]: the prompt stands once, position ids go on after it in both answers, and its last
    token (place 1) predicts the first token of each: sources 1, 2 and 1. Alone they'd be 4 + 3 = 7 tokens.
    """
    chosen = TokenSequence((5, 6, 7, 8), (False, False, True, True))
    rejected = TokenSequence((5, 6, 9), (False, False, True))
    pair = Example(id="p", kind="preference", sequences=(chosen, rejected), extra={"prompt_length": (2, 2)})
    batch = collate([pair], PAD, layout="shared_prompt")
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.spans == Spans(spans=(Span(0, 2), Span(2, 4, 0), Span(4, 5, 0)), tokens=7)
    assert batch.source.tolist() == [1, 2, 1] and batch.target.tolist() == [7, 8, 9]
    sees = batch.attention_mask[0, 0].int().tolist()
    assert sees == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert batch.real_tokens == 7 and batch.token_mask.all()


def test_what_is_shared_ends_at_the_first_trained_or_different_token() -> None:
    """Both begin with 5 6; the second row trains 6 already, so one token is shared; where nothing is, the two
    stand as they do packed.
    """
    one, two = TokenSequence((5, 6, 7), (False, False, True)), TokenSequence((5, 6, 8), (False, True, True))
    batch = collate([Example(id="p", kind="preference", sequences=(one, two))], PAD, layout="shared_prompt")
    assert batch.input_ids.tolist() == [[5, 6, 7, 6, 8]] and batch.source.tolist() == [1, 0, 3]
    other = TokenSequence((4, 6, 8), (False, True, True))
    examples = [Example(id="p", kind="preference", sequences=(one, other))]
    apart, packed = (collate(examples, PAD, layout=layout) for layout in ("shared_prompt", "packed"))
    assert apart.spans == packed.spans and torch.equal(apart.source, packed.source)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SEQUENCES, SEQUENCES), min_size=1, max_size=5))
def test_every_layout_trains_the_same_tokens_in_the_same_order(pairs: list[Any]) -> None:
    """With the same token before each, at the same position id, seeing as many tokens."""
    examples = [_example(f"p{number}", pair) for number, pair in enumerate(pairs)]
    padded = collate(examples, PAD)
    for layout in ("packed", "shared_prompt"):
        batch = collate(examples, PAD, layout=layout)  # type: ignore[arg-type]
        assert batch.mask is None and batch.input_ids.shape[0] == 1
        for name in ("target", "segment", "position", "length"):
            assert torch.equal(getattr(batch, name), getattr(padded, name))
        for name in ("input_ids", "position_ids"):
            ours, theirs = (getattr(one, name).flatten()[one.source] for one in (batch, padded))
            assert torch.equal(ours, theirs)
        seen = batch.attention_mask[0, 0].sum(1)[batch.source]
        assert torch.equal(seen, padded.position_ids.flatten()[padded.source] + 1)
        assert batch.real_tokens == padded.real_tokens and batch.sample_ids == padded.sample_ids


def test_a_batch_says_who_sees_whom_once() -> None:
    batch = collate([_example("p", (_sequence([1, 2], [False, True]),))], PAD)
    with pytest.raises(ValueError, match="a mask or spans: one of them"):
        replace(batch, spans=Spans(spans=(Span(0, 2),), tokens=2))


def test_a_segment_without_trained_tokens_keeps_its_place() -> None:
    empty, full = TokenSequence((1, 2), (False, False)), TokenSequence((1, 3), (False, True))
    batch = collate([Example(id="p", kind="preference", sequences=(empty, full))], PAD)
    assert batch.length.tolist() == [0, 1] and batch.segment.tolist() == [1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SEQUENCES, SEQUENCES), min_size=1, max_size=5), st.sampled_from([1, 8]))
def test_a_preference_batch_is_all_chosen_then_all_rejected(pairs: list[Any], multiple: int) -> None:
    examples = [_example(f"p{number}", pair) for number, pair in enumerate(pairs)]
    batch = collate(examples, PAD, pad_to_multiple=multiple)
    segments = [pair[side] for side in (0, 1) for pair in pairs]
    _check(batch, segments)
    assert batch.input_ids.shape[1] % multiple == 0
    assert batch.extra["width"].tolist() == [len(sequence) for sequence in segments]
    assert batch.extra["weight"].tolist() == [2.0] * len(pairs)
    assert bool((batch.input_ids[~batch.attention_mask] == PAD).all())


@settings(max_examples=100, deadline=None)
@given(st.lists(SEQUENCES, min_size=1, max_size=8), st.integers(4, 20))
def test_packing_changes_the_layout_and_nothing_else(sequences: list[TokenSequence], room: int) -> None:
    examples = [_example(f"t{number}", (sequence,)) for number, sequence in enumerate(sequences)]
    units = pack(examples, room)
    assert sorted(name for unit in units for name in unit.sample_ids) == sorted(
        example.id for example in examples
    )
    assert all(unit.length <= room or len(unit.members) == 1 for unit in units)
    batch = collate(units, PAD)
    members = [sequence for unit in units for sequence in unit.sequences]
    _check(batch, members)
    assert batch.sample_ids == tuple(name for unit in units for name in unit.sample_ids)
    assert batch.extra["width"].tolist() == [len(sequence) for sequence in members]
    total = sum(len(member) * (len(member) + 1) // 2 for member in members)
    assert (
        int(batch.attention_mask.sum()) == total
    )  # each member attends to itself, causally, and to nothing else


def test_a_packed_row_gives_each_member_the_log_probs_of_its_own_row() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=64
    )
    generator = torch.Generator().manual_seed(1)
    examples = []
    for number, length in enumerate((5, 3, 7, 4)):
        ids = torch.randint(0, 60, (length,), generator=generator).tolist()
        examples.append(_example(f"t{number}", (_sequence(ids, [True] * length),)))
    for attention in ("sdpa", "eager"):
        model = LlamaForCausalLM._from_config(config, attn_implementation=attention).eval()
        found = []
        for batch in (collate(examples, 0), collate(pack(examples, 10), 0)):
            mask = batch.attention_mask
            if attention == "eager" and mask.dim() == 4:  # eager attention adds the mask
                mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
            logits = model(
                input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.position_ids
            ).logits
            assert bool(torch.isfinite(logits).all())  # padding attends to nothing, and must not become NaN
            rows = logits.log_softmax(-1).flatten(0, 1)[batch.source, batch.target]
            found.append({
                name: rows[batch.segment == number] for number, name in enumerate(batch.sample_ids)
            })  # fmt: skip
        for name, values in found[0].items():
            torch.testing.assert_close(values, found[1][name], atol=1e-5, rtol=0)


def test_a_shadow_trains_nothing_and_belongs_to_no_sample() -> None:
    batch = shadow(_example("p", (_sequence([1, 2], [False, True]), _sequence([1], [False]))), PAD)
    assert batch.kind == "preference" and batch.sample_ids == ()
    assert (batch.tokens, batch.segments, batch.input_ids.tolist()) == (0, 0, [[1, 2]])
    assert batch.extra["width"].tolist() == [2]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="first token"):
        TokenSequence((1,), (True,))
    with pytest.raises(ValueError, match="as many"):
        TokenSequence((1, 2), (False,))
    text = _example("t", (TokenSequence((1, 2), (False, True)),))
    pair = _example("p", text.sequences * 2)
    with pytest.raises(ValueError, match="one kind"):
        collate([text, pair], PAD)
    with pytest.raises(ValueError, match="can't be packed"):
        pack([pair], 8)
    with pytest.raises(ValueError, match="2 sequences"):
        Example(id="t", kind="text", sequences=pair.sequences)


def test_numbers_per_trained_token_lie_as_the_tokens_do() -> None:
    """Two completions of two tokens and one: [N] = 3, in every layout."""
    examples = [
        Example(
            id=name, kind="scored", sequences=(_sequence([1, *ids], [False, *[True] * len(ids)]),),
            extra={"old_logps": (tuple(-float(token) for token in ids),)},
        )
        for name, ids in (("a", [5, 6]), ("b", [7]))
    ]  # fmt: skip
    for batch in (
        collate(examples, PAD),
        collate(examples, PAD, layout="packed"),
        collate(pack(examples, 9), PAD, layout="packed"),
    ):
        assert torch.equal(batch.extra["old_logps"], -batch.target.float())
