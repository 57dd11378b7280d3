from __future__ import annotations

import math

import pytest

from llmfw.core.data import Example, TokenSequence
from llmfw.core.evaluation.perplexity import documents, figures, text_bytes


def test_perplexity_and_bits_per_byte_by_hand():
    """-2 nats in 1 token and 4 bytes, -6 nats in 3 tokens and 4 bytes: exp(8 / 4) and 8 / ln 2 / 8."""
    found = figures([(-2.0, 1), (-6.0, 3)], [4, 4])
    assert found["perplexity"].value == pytest.approx(math.exp(2))
    assert found["bits_per_byte"].value == pytest.approx(1 / math.log(2))
    assert found["perplexity_tokens"] == 4 and found["perplexity_bytes"] == 8
    assert (found["perplexity"].low, found["perplexity"].high) == (pytest.approx(math.exp(2)),) * 2


def test_packed_rows_are_taken_apart_and_of_a_pair_the_chosen_answer_counts():
    one, other = (TokenSequence((1, 2, token), (False, False, True)) for token in (3, 4))
    packed = Example(
        id="a+b", kind="text", sequences=(one, other), members=("a", "b"), extra={"prompt_length": (2, 2)}
    )
    pair = Example(id="c", kind="preference", sequences=(other, one), extra={"prompt_length": (2, 1)})
    found = documents([packed, pair])
    assert [(one.id, one.sequences[0].ids[-1], one.kind) for one in found] == [
        ("a", 3, "text"), ("b", 4, "text"), ("c", 4, "text"),
    ]  # fmt: skip
    assert found[2].extra == {"prompt_length": (2,)}


def test_bytes_are_those_of_the_trained_text_without_control_tokens(opened):
    tokenizer = opened().tokenizer
    ids = tokenizer("aé", add_special_tokens=False)["input_ids"]
    sequence = TokenSequence((1, *ids, tokenizer.eos_token_id), (False, *[True] * len(ids), True))
    assert text_bytes(tokenizer, Example(id="x", kind="text", sequences=(sequence,))) == 3
