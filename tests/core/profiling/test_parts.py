"""Which parts a decoder has, over the families of the tiny presets and a few more."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch import nn

from llmfw.core.models.policy import decoder_of
from llmfw.core.profiling.parts import kind_of, parts_of
from llmfw.testing.models import tiny_model


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("tiny-llama", {"embedding": 1, "attention": 2, "mlp": 2, "norms": 5}),
        ("tiny-mixtral", {"embedding": 1, "attention": 2, "mlp": 2, "norms": 5}),
        ("tiny-mamba", {"embedding": 1, "mixer": 2, "norms": 3}),
    ],
)
def test_two_layers_have_their_parts(preset: str, expected: dict[str, int]) -> None:
    """Norms: two a layer and the last one; Mamba's block has one."""
    decoder: Any = decoder_of(tiny_model(preset))
    assert Counter(part for _, part in parts_of(decoder)) == expected


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("self_attn", "Qwen3Attention", "attention"),
        ("attn", "GPT2Attention", "attention"),
        ("self_attention", "BloomAttention", "attention"),
        ("mlp", "GPT2MLP", "mlp"),
        ("block_sparse_moe", "MixtralSparseMoeBlock", "mlp"),
        ("DenseReluDense", "T5DenseGatedActDense", "mlp"),
        ("mixer", "MambaMixer", "mixer"),
        ("input_layernorm", "LlamaRMSNorm", "norms"),
        ("rotary_emb", "LlamaRotaryEmbedding", None),
        ("dropout", "Dropout", None),
    ],
)
def test_a_module_is_known_by_its_name_or_its_class(name: str, kind: str, expected: str | None) -> None:
    assert kind_of(name, type(kind, (nn.Module,), {})()) == expected


def test_a_compiled_layer_is_one_part() -> None:
    decoder = nn.Module()
    layer = nn.Module()
    layer.self_attn = nn.Linear(1, 1)
    decoder.layers = nn.ModuleList([layer])
    assert [part for _, part in parts_of(decoder)] == ["attention"]
    layer._compiled_call_impl = layer.forward  # what ``layer.compile()`` sets
    assert list(parts_of(decoder)) == [(layer, "compiled layers")]
