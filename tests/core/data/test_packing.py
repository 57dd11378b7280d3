"""Packed rows: best fit, long texts in pieces, equal to single rows, and models that can't have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from llmfw.core.data import Example, TokenSequence, collate_with, pack, packing_refusal, prepare, split_long
from llmfw.core.errors import DataError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.schema import Root

BYTE = byte_tokenizer()
TINY: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24},
    "qwen2": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4},
    "gpt_neox": {"num_attention_heads": 4, "intermediate_size": 24},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))


def _text(name: str, ids: list[int]) -> Example:
    sequence = TokenSequence(tuple(ids), (False, *[True] * (len(ids) - 1)))
    return Example(id=name, kind="text", sequences=(sequence,), extra={"prompt_length": (1,)})


def test_samples_go_where_the_least_room_is_left() -> None:
    """Rows of 10: 7 and 6 open a row each (3 and 4 left); 4 fits the second exactly, 3 the first exactly,
    and 2 opens a third. First fit in the given order would need a row more.
    """
    sizes = {"c": 4, "a": 7, "e": 2, "b": 6, "d": 3}
    units = pack([_text(name, [1] * size) for name, size in sizes.items()], 10)
    assert [unit.sample_ids for unit in units] == [("c", "b"), ("a", "d"), ("e",)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=60))
def test_packing_keeps_every_sample_once_within_the_limit_and_fills_rows_well(sizes: list[int]) -> None:
    examples = [_text(f"s{index}", [1] * size) for index, size in enumerate(sizes)]
    units = pack(examples, 32)
    assert sorted(name for unit in units for name in unit.sample_ids) == sorted(e.id for e in examples)
    assert all(unit.length <= 32 or len(unit.sample_ids) == 1 for unit in units)
    rooms = sorted(32 - unit.length for unit in units if unit.length <= 32)
    assert sum(room >= 16 for room in rooms) <= 1  # two half-empty rows would have been joined
    assert pack(examples, 32) == units


def test_a_long_text_is_split_and_every_token_but_a_pieces_first_is_trained_once() -> None:
    """Ten tokens in pieces of 4: 0-3, 4-7, 8-9; of each piece all but the first token is trained: 3 + 3 + 1.
    Of nine tokens the last piece would be one token that trains nothing: it's left out.
    """
    whole = _text("t", list(range(100, 110)))
    pieces = split_long(whole, 4)
    assert [piece.id for piece in pieces] == ["t#1", "t#2", "t#3"]
    assert [piece.sequences[0].ids for piece in pieces] == [
        (100, 101, 102, 103), (104, 105, 106, 107), (108, 109),
    ]  # fmt: skip
    trained = [token for piece in pieces for token in piece.sequences[0].trained_ids]
    assert trained == [101, 102, 103, 105, 106, 107, 109]
    assert [len(piece.sequences[0]) for piece in split_long(_text("t", list(range(9))), 4)] == [4, 4]
    assert split_long(whole, 10) == [whole]


def test_splitting_is_for_texts_only_and_is_counted(tmp_path: Path) -> None:
    root = Root()
    root.data.name = str(tmp_path / "a.jsonl")
    root.data.validation, root.data.too_long, root.data.max_length = None, "split", 10
    Path(root.data.name).write_text(json.dumps({"id": "a", "text": "x" * 95}) + "\n")
    prepared = prepare(root, BYTE)
    assert [example.length for example in prepared.train] == [40, 40, 16]  # 95 bytes and the end of text
    assert prepared.report.too_long == 1
    assert prepared.train[-1].sequences[0].ids[-1] == BYTE.eos_token_id
    root.data.packing = True
    assert prepare(root, BYTE).report.splits["train"].efficiency == 96 / 120
    Path(root.data.name).write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    with pytest.raises(DataError, match="TOO-LONG-SPLIT.*completion rows can't be split"):
        prepare(root, BYTE)


def _model(kind: str) -> Any:
    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 64}
    sizes = {"vocab_size": 50, **TINY[kind]} if kind == "gpt2" else {**small, **TINY[kind]}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**sizes, initializer_range=0.3)
    return AutoModelForCausalLM.from_config(config).double().eval()


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_samples_have_the_log_probs_that_they_have_alone(kind: str, attention: str) -> None:
    model = _model(kind)
    model.set_attn_implementation(attention)
    policy = LocalPolicy(model)
    examples = [
        _text(f"s{size}", [(7 * size + index) % 50 for index in range(size)]) for size in (9, 5, 7, 3)
    ]
    collate = collate_with(0)
    with torch.no_grad():
        alone = {each.id: policy.logps(collate([each])) for each in examples}
        batch = collate(pack(examples, 16))
        together = policy.logps(batch)
    bound = 1e-9 if attention == "sdpa" else 1e-5  # eager attention's softmax is float32 in any model
    for segment, name in enumerate(batch.sample_ids):
        assert (together[batch.segment == segment] - alone[name]).abs().max() < bound


@pytest.mark.parametrize(
    ("kind", "attention", "why"),
    [
        ("mamba", "sdpa", "carry a state"),
        ("mamba2", "sdpa", "carry a state"),
        ("jamba", "sdpa", "carry a state"),
        ("rwkv", "sdpa", "carries a state"),
        ("bloom", "sdpa", "takes no position_ids"),
        ("t5", "sdpa", "encoder-decoder"),
        ("llama", "flash_attention_2", None),
        ("llama", "flex_attention", "takes no mask"),
        ("llama", "sdpa", None),
        ("gpt2", "eager", None),
        ("mixtral", "sdpa", None),
    ],
)
def test_models_that_would_mix_packed_samples_are_known(kind: str, attention: str, why: str | None) -> None:
    found = packing_refusal(CONFIG_MAPPING[kind](), attention)
    assert (found is None) if why is None else (found is not None and why in found)
