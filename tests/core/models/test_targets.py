"""Which layers names and presets mean, read off the modules of each architecture; nothing is allocated."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from llmfw.core.errors import UsageError
from llmfw.core.models.adapters import add_lora
from llmfw.core.models.targets import resolve_targets
from llmfw.core.schema import AdapterConfig

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64, "d_kv": 8}
MLA = {
    "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "num_experts_per_tok": 2,
}  # fmt: skip


def _model(kind: str, **config: Any) -> Any:
    auto: Any = AutoModelForSeq2SeqLM if kind in ("t5", "bart") else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(kind, **config))


@pytest.mark.parametrize(
    ("kind", "config", "attention", "mlp"),
    [
        ("llama", SMALL, "q_proj k_proj v_proj o_proj", "gate_proj up_proj down_proj"),
        ("gpt2", GPT2, "c_attn attn.c_proj", "c_fc mlp.c_proj"),
        (
            "opt",
            {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 32},
            "k_proj v_proj q_proj out_proj",
            "fc1 fc2",
        ),
        ("gpt_neox", SMALL, "query_key_value dense", "dense_h_to_4h dense_4h_to_h"),
        (
            "mixtral",
            {**SMALL, "num_local_experts": 4},
            "q_proj k_proj v_proj o_proj",
            "gate_up_proj down_proj",
        ),
        ("t5", T5, "q k v o", "wi wo"),
    ],
)
def test_presets_mean_the_projections_of_their_blocks(kind, config, attention, mlp) -> None:
    model = _model(kind, **config)
    found = {name: resolve_targets(model, [name]) for name in ("attention", "mlp", "all-linear")}
    assert found["attention"].modules == tuple(attention.split())
    assert found["mlp"].modules + found["mlp"].parameters == tuple(mlp.split())
    both = {*found["attention"].layers, *found["mlp"].layers}
    assert set(found["all-linear"].layers) == both and found["all-linear"].experts == found["mlp"].experts


def test_routers_and_the_head_are_in_no_preset_but_can_be_named() -> None:
    model = _model("qwen2_moe", **SMALL, moe_intermediate_size=16, shared_expert_intermediate_size=16,
                   num_experts=4)  # fmt: skip
    found = resolve_targets(model, ["all-linear"])
    assert not [name for name in found.layers if re.search(r"lm_head|\.gate$|shared_expert_gate", name)]
    assert "shared_expert.up_proj" in " ".join(found.layers) and len(found.experts) == 4
    assert resolve_targets(model, ["attention", "lm_head"]).layers[-1] == "lm_head"


def test_presets_and_names_add_up_and_endings_match_nothing_else() -> None:
    """Two blocks: attention has 4 layers in each, and o_proj of block 1 is named by its full name besides."""
    model = _model("llama", **SMALL)
    found = resolve_targets(model, ["q_proj", "layers.1.self_attn.o_proj"])
    assert found.layers == ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj",
                            "model.layers.1.self_attn.o_proj")  # fmt: skip
    assert found.modules == ("q_proj", "1.self_attn.o_proj")
    assert str(found) == "3 layers (q_proj, 1.self_attn.o_proj)"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["w_proj"], "no layer of the model is named 'w_proj'; choose of: .*q_proj.*or a preset: all-linear"),
        ([], "no layer is named"),
        (["proj"], "no layer of the model is named 'proj'"),
    ],
)
def test_what_matches_nothing_is_refused(wanted, said) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_targets(_model("llama", **SMALL), wanted)


def test_a_preset_that_matches_nothing_is_refused_and_a_state_space_model_keeps_what_its_kernel_reads() -> (
    None
):
    model = _model("mamba", vocab_size=64, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(UsageError, match="the preset 'attention' matches no layer of this model"):
        resolve_targets(model, ["attention"])
    assert resolve_targets(model, ["all-linear"]).modules == ("in_proj", "x_proj", "dt_proj")


def test_layers_that_peft_takes_for_experts_are_left_out_and_said() -> None:
    model = _model("deepseek_v2", **{**SMALL, **MLA})
    found = resolve_targets(model, ["mlp"])
    assert found.parameters == ("gate_up_proj", "experts.down_proj") and not found.layers
    assert "not gate_proj, up_proj" in str(found)
    with pytest.raises(UsageError, match="PEFT takes 'up_proj' for another name"):
        resolve_targets(model, ["up_proj"])


@pytest.mark.parametrize("targets", [["all-linear"], ["mlp"], ["attention"]])
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("mixtral", {**SMALL, "num_local_experts": 4}),
        ("deepseek_v2", {**SMALL, **MLA}),
        ("gpt2", GPT2),
        ("t5", T5),
    ],
)
def test_peft_adapts_just_what_was_resolved(kind, config, targets) -> None:
    model = _model(kind, **config)
    wanted = resolve_targets(model, targets)
    wrapped = add_lora(model, AdapterConfig(kind="lora", r=2, target_modules=targets), 0, "base")
    assert set(wrapped.targeted_module_names) == set(wanted.layers)
    experts = set(wrapped.targeted_parameter_names)
    assert experts == set(wanted.experts)


def test_a_linear_layer_outside_every_block_belongs_to_all_linear_alone() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 4)
            self.config = SimpleNamespace(model_type="own")

        def get_output_embeddings(self) -> None:
            return None

    assert resolve_targets(Model(), ["all-linear"]).layers == ("project",)
    with pytest.raises(UsageError, match="'mlp' matches no layer"):
        resolve_targets(Model(), ["mlp"])
