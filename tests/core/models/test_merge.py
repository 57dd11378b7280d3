"""An adapter merged into its base: rounded once, in the base's own dtype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.errors import UsageError
from llmfw.core.models.build import build_model
from llmfw.core.models.merge import base_dtype, merge_adapter
from llmfw.core.models.parameters import trainable_parameters
from llmfw.core.models.source import resolve_model
from llmfw.core.models.store import save_weights, weights_manifest
from llmfw.core.schema import AdapterConfig, ModelConfig

IDS = torch.arange(1, 9)[None]


@pytest.fixture
def saved(tiny, tmp_path: Path):
    """A stirred adapter over a base in ``dtype``, saved; gives its source and the model in training."""

    def make(dtype: str = "bfloat16", tied: bool = False, **settings: Any) -> tuple[Any, Any]:
        base, folder = tmp_path / "base", tmp_path / "adapter"
        build_model(
            ModelConfig(name="tiny", dtype=dtype, config=tiny(tie_word_embeddings=tied).config)
        ).module.save_pretrained(base)
        adapter = AdapterConfig(kind="lora", r=2, alpha=4.0, **settings.pop("adapter", {}))
        built = build_model(ModelConfig(name=str(base), **settings), adapter)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in trainable_parameters(built).values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        save_weights(built, folder)
        (folder / "manifest.json").write_text(json.dumps(weights_manifest(built)))
        return resolve_model(str(folder)), built

    return make


@torch.no_grad()
def test_each_layer_is_merged_in_float32_and_rounded_once(saved) -> None:
    """W' = bf16(float32(W) + 2 B A), for alpha 4 and r 2."""
    source, built = saved()
    merged = merge_adapter(source)
    assert base_dtype(source) == "bfloat16" and merged.model.dtype == "bfloat16" and merged.kind == "full"
    layer = built.module.base_model.model.model.layers[1].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = (layer.base_layer.weight.float() + 2.0 * (b @ a)).to(torch.bfloat16)
    assert torch.equal(merged.module.model.layers[1].mlp.up_proj.weight, expected)
    assert not any(parameter.requires_grad for parameter in merged.module.parameters())


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "adapter",
    [
        {},
        {"use_dora": True},
        {"target_modules": ["q_proj", "lm_head"]},
        {"modules_to_save": ["lm_head"], "use_rslora": True},
    ],
)
def test_the_merged_model_answers_as_the_adapted_one_and_reloads_in_plain_transformers(
    saved, tmp_path, adapter, tied
) -> None:
    from transformers import AutoModelForCausalLM

    source, built = saved("float32", tied, adapter=adapter)
    merged, logits = merge_adapter(source), built.module(IDS).logits
    assert (merged.module(IDS).logits - logits).abs().max() < 2e-5
    save_weights(merged, tmp_path / "merged")
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.equal(plain(IDS).logits, merged.module(IDS).logits)
    # an adapter on one of two tied weights parts them, a copy of both keeps them together
    assert plain.config.tie_word_embeddings == (tied and "lm_head" not in adapter.get("target_modules", ()))


@torch.no_grad()
def test_an_adapter_over_a_quantised_base_is_merged_into_the_base_as_it_was(saved) -> None:
    source, built = saved("bfloat16", quantization="nf4")
    merged = merge_adapter(source)
    assert source.held == "nf4" and merged.model.quantization == "none"
    assert {parameter.dtype for parameter in merged.module.parameters()} == {torch.bfloat16}
    wide = merge_adapter(source, dtype="float32")
    assert wide.model.dtype == "float32"
    layer = built.module.base_model.model.model.layers[0].self_attn.q_proj
    plain = build_model(ModelConfig(name=source.base.name)).module.model.layers[0].self_attn.q_proj
    change = 2.0 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)
    assert torch.equal(wide.module.model.layers[0].self_attn.q_proj.weight, plain.weight + change)


def test_there_has_to_be_an_adapter(tiny, tmp_path) -> None:
    build_model(tiny()).module.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"MODEL-MERGE.*no adapter to merge"):
        merge_adapter(resolve_model(str(tmp_path)))
