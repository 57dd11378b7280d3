"""A frozen base in 4 or 8 bits: sizes, numbers that don't depend on the mode, saving, and what stays wide."""

from __future__ import annotations

import json
from copy import deepcopy
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.models import quantize
from llmfw.core.models.build import BuiltModel, build_model
from llmfw.core.models.parameters import trainable_parameters
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.models.quantize import quantise, weight_bytes
from llmfw.core.models.reference import reference_of
from llmfw.core.models.reference_cache import reference_key
from llmfw.core.models.source import resolve_model
from llmfw.core.models.store import save_weights, weights_manifest
from llmfw.core.records import Report, Surgery
from llmfw.core.schema import AdapterConfig, ModelConfig

IDS = torch.arange(1, 9)[None]
HELD = ["nf4", "int8"]
LORA = AdapterConfig(kind="lora", r=2, alpha=8.0)


@pytest.fixture
def held(tiny):
    """Settings of a tiny model whose base is held in ``kind``."""

    def make(kind: str, dtype: str = "float32", **config: Any) -> ModelConfig:
        return ModelConfig(name="tiny", dtype=dtype, quantization=kind, config=tiny(**config).config)

    return make


def _stir(built: BuiltModel) -> BuiltModel:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable_parameters(built).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built


@torch.no_grad()
def _logits(module: Any) -> torch.Tensor:
    return module(input_ids=IDS).logits


def test_a_weight_takes_the_bytes_of_its_format() -> None:
    """64 x 128 = 8192 weights. int8: 8192 bytes and 64 scales of 4. nf4: 4096 bytes; a scale for each 64
    weights, 128 of them, in 8 bits again: 128 bytes, one float (4) for these 128 and their mean (4); two
    maps: 16 and 256 floats."""
    from llmfw.core.models.bnb_layers import int8_layer, nf4_layer

    weight = torch.randn(64, 128)
    eight, four = int8_layer(weight, None), nf4_layer(weight, None)
    assert eight.weight.nbytes == 8192 and eight.weight.SCB.nbytes == 256
    state = four.weight.quant_state
    parts = [state.absmax, state.state2.absmax, state.offset, state.code, state.state2.code]
    assert [four.weight.nbytes, *(part.nbytes for part in parts)] == [4096, 128, 4, 4, 64, 1024]
    for layer in (eight, four):
        x = torch.randn(3, 128)
        assert (layer(x) - x @ weight.T).abs().max() < 0.15 * (x @ weight.T).abs().max()


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_layers_are_quantised_and_all_else_keeps_its_dtype(held, kind, dtype) -> None:
    built = build_model(held(kind, dtype), LORA)
    wide = {
        name for name, p in built.module.named_parameters() if p.is_floating_point() and "lora" not in name
    }
    ends = {"embed_tokens.weight", "lm_head.weight", "norm.weight", "layernorm.weight"}
    assert all(name.endswith(tuple(ends)) for name in wide) and len(wide) == 3 + 2 * 2
    assert {built.module.get_parameter(name).dtype for name in wide} == {getattr(torch, dtype)}
    assert set(trainable_parameters(built)) == {n for n in trainable_parameters(built) if ".lora_" in n}


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("dora", [False, True])
def test_training_evaluation_copies_and_moves_give_the_same_numbers(held, batch, kind, dora) -> None:
    built = _stir(build_model(held(kind), AdapterConfig(kind="lora", r=2, use_dora=dora)))
    policy = LocalPolicy(built.module)
    built.module.train()
    trained = policy.logps(batch)
    trained.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable_parameters(built).values())
    built.module.eval()
    assert torch.equal(policy.logps(batch), trained)
    assert torch.equal(LocalPolicy(deepcopy(built.module)).logps(batch), trained)
    built.module.to("cpu")  # as Lightning does at the end
    assert torch.equal(policy.logps(batch), trained)


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_compute_in_the_dtype_of_autocast_as_torchs_own_do(held, kind, dtype) -> None:
    built = build_model(held(kind), LORA)
    layer = built.module.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    with torch.autocast("cpu", dtype):
        assert layer(torch.randn(2, 16)).dtype == dtype
    assert layer(torch.randn(2, 16)).dtype == torch.float32


@pytest.mark.parametrize("kind", HELD)
def test_the_adapter_off_reference_is_the_quantised_base_and_the_cache_knows_it(held, batch, kind) -> None:
    built = build_model(held(kind), LORA)
    policy, reference = LocalPolicy(built.module), reference_of(built)
    built.module.train()
    assert torch.equal(policy.logps(batch), reference.logps(batch))
    _stir(built)
    assert not torch.allclose(policy.logps(batch), reference.logps(batch), atol=1e-2)
    wide = build_model(held("none"), LORA)
    assert reference_key(wide) != reference_key(built) and wide.base_hash == built.base_hash


@pytest.mark.parametrize("kind", HELD)
def test_a_saved_run_comes_back_bit_for_bit_and_also_over_the_unquantised_base(held, tmp_path, kind) -> None:
    built = _stir(build_model(held(kind), LORA))
    save_weights(built, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    assert resolve_model(str(tmp_path)).held == kind
    again = build_model(ModelConfig(name=str(tmp_path), quantization=kind), train=False)
    assert torch.equal(_logits(again.module), _logits(built.module))
    wide = build_model(ModelConfig(name=str(tmp_path)), train=False)
    difference = (_logits(wide.module) - _logits(built.module)).abs().max()
    assert 0 < difference < (4 if kind == "nf4" else 0.3)


@pytest.mark.parametrize("kind", HELD)
def test_further_training_merges_into_the_base_as_it_was_and_quantises_the_sum(held, tmp_path, kind) -> None:
    built = _stir(build_model(held(kind), LORA))
    save_weights(built, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    onward = build_model(ModelConfig(name=str(tmp_path), quantization=kind), LORA)
    merged = build_model(ModelConfig(name=str(tmp_path)), LORA).module.merge_and_unload()
    quantise(merged, kind)
    assert torch.equal(_logits(onward.module), _logits(merged))


@pytest.mark.parametrize("kind", HELD)
def test_the_weights_are_those_that_transformers_makes_when_it_loads_a_folder(tiny, tmp_path, kind) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    build_model(tiny()).module.save_pretrained(tmp_path)
    ours = build_model(ModelConfig(name=str(tmp_path), quantization=kind), LORA)
    asked = (
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        if kind == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=asked, dtype=torch.float32, device_map="cpu"
    )
    for name, module in theirs.named_modules():
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
            own = ours.module.get_base_model().get_submodule(name).base_layer
            assert torch.equal(own.weight.data, module.weight.data)


def test_gpt2s_layers_are_turned_round(held) -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 1, "n_positions": 64,
              "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    built = build_model(held("int8", **config), LORA)
    plain = build_model(held("none", **config))
    with built.module.disable_adapter():
        assert (_logits(built.module) - _logits(plain.module)).abs().max() < 0.2


def test_what_a_surgery_added_or_trains_is_left_as_it_is(held) -> None:
    def add(model: Any, generator: torch.Generator) -> Report:
        extra = model.model.layers[0].mlp.extra = nn.Linear(16, 16, bias=False, device="meta")
        extra.weight = nn.Parameter(torch.randn(16, 16, generator=generator))
        return Report(changed=("extra",))

    surgery = Surgery(
        name="extra", phase="after_load", apply=add, trainable=("*.mlp.extra.*", "*.1.mlp.up_proj.weight")
    )
    built = build_model(
        held("nf4"), AdapterConfig(kind="lora", target_modules=["attention"]), [("toy", surgery)]
    )
    model = built.module.get_base_model().model
    assert type(model.layers[0].mlp.extra) is nn.Linear and type(model.layers[1].mlp.up_proj) is nn.Linear
    assert type(model.layers[0].mlp.up_proj).__name__ == "Nf4Linear"
    assert model.layers[1].mlp.up_proj.weight.requires_grad
    assert {"model.layers.0.mlp.extra.weight", "model.layers.1.mlp.up_proj.weight"} <= set(built.own)


def test_training_the_quantised_base_itself_is_refused_before_anything_is_loaded(held) -> None:
    with pytest.raises(UsageError, match=r"QUANTISE.*nf4 is frozen.*adapter.kind=lora"):
        build_model(held("nf4"))
    assert build_model(held("nf4"), train=False).module.training is False


def test_a_model_saved_in_full_can_be_held_quantised_to_answer(tiny, held, tmp_path: Path) -> None:
    built = build_model(tiny())
    save_weights(built, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    small = build_model(ModelConfig(name=str(tmp_path), quantization="int8"), train=False)
    assert weight_bytes(small.module) < weight_bytes(built.module)
    assert 0 < (_logits(small.module) - _logits(built.module)).abs().max() < 0.3


def test_without_the_package_one_line_names_it(held, monkeypatch: pytest.MonkeyPatch) -> None:
    real = util.find_spec
    monkeypatch.setattr(quantize, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(ResourceError, match=r"BITSANDBYTES\] model.quantization: .*pip install bitsandbytes"):
        build_model(held("nf4"), LORA)


def test_a_model_without_linear_layers_says_so() -> None:
    class Bare(nn.Module):
        def get_output_embeddings(self) -> None:
            return None

    with pytest.raises(UsageError, match="no linear layer that can be quantised"):
        quantise(Bare(), "nf4")
