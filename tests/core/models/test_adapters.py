"""LoRA, DoRA, rsLoRA and modules trained in full: their numbers, their saving, their way into plain PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.build import BuiltModel, build_model
from llmfw.core.models.parameters import model_facts, parameter_groups, source_facts, trainable_parameters
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.models.reference import reference_of
from llmfw.core.models.source import resolve_model
from llmfw.core.models.store import save_weights, weights_manifest
from llmfw.core.models.surgery import all_parameters
from llmfw.core.records import Report, Surgery
from llmfw.core.schema import AdapterConfig, ModelConfig

IDS = torch.arange(1, 9)[None]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "dora of embeddings": {"use_dora": True, "target_modules": ["q_proj", "embed_tokens"]},
    "the head too": {"target_modules": ["mlp", "lm_head"]},
    "embeddings in full": {"modules_to_save": ["embed_tokens"]},
    "both ends in full": {"modules_to_save": ["embed_tokens", "lm_head"], "use_dora": True},
    "a norm in full": {"modules_to_save": ["model.norm"]},
}


def _lora(**settings: Any) -> AdapterConfig:
    return AdapterConfig(kind="lora", **{"r": 2, "alpha": 8.0, **settings})


def _stir(built: BuiltModel) -> BuiltModel:
    """As if trained: every trainable parameter moved."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable_parameters(built).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built


@torch.no_grad()
def _logits(module: Any) -> torch.Tensor:
    return module(input_ids=IDS).logits


def _save(built: BuiltModel, folder: Path) -> Path:
    save_weights(built, folder)
    (folder / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    return folder


@pytest.fixture
def base(tiny, tmp_path: Path):
    """Settings of a tiny model in a folder; ``tied`` or not."""

    def make(tied: bool = False) -> ModelConfig:
        folder = tmp_path / f"base-{tied}"
        build_model(tiny(tie_word_embeddings=tied)).module.save_pretrained(folder)
        return ModelConfig(name=str(folder))

    return make


def test_the_scale_is_alpha_over_r_and_over_its_root_with_rslora(tiny) -> None:
    """alpha 8, r 4: 8 / 4 = 2, and 8 / sqrt(4) = 4. With x = 1 in one place, A = 1 and B = 1 there, the
    layer's output grows by just that."""
    for rslora, scale in ((False, 2.0), (True, 4.0)):
        built = build_model(tiny(), _lora(r=4, use_rslora=rslora, target_modules=["q_proj"]))
        layer = built.module.base_model.model.model.layers[0].self_attn.q_proj
        assert layer.scaling["default"] == scale
        x = torch.zeros(16)
        x[3] = 1.0
        with torch.no_grad():
            before = layer(x)
            layer.lora_A["default"].weight.zero_()[0, 3] = 1.0
            layer.lora_B["default"].weight[5, 0] = 1.0
            grown = layer(x) - before
        assert grown[5] == pytest.approx(scale, abs=1e-6) and grown.count_nonzero() == 1


def test_dora_begins_at_the_weights_own_norms_and_scales_rows_by_its_magnitudes(tiny) -> None:
    """Magnitude i is |W_i|; twice the magnitude is twice the row's output, whatever the direction."""
    built = build_model(tiny(), _lora(use_dora=True, target_modules=["q_proj"]))
    layer = built.module.base_model.model.model.layers[0].self_attn.q_proj
    magnitude = layer.lora_magnitude_vector["default"].weight
    assert torch.equal(magnitude, torch.linalg.norm(layer.base_layer.weight, dim=1))
    assert torch.equal(_logits(built.module), _logits(build_model(tiny()).module))
    x = torch.linspace(-1, 1, 16)[None]
    with torch.no_grad():
        before = layer(x)[0]
        magnitude[2] *= 2
        after = layer(x)[0]
    assert after[2] == pytest.approx(2 * before[2].item(), rel=1e-5)
    assert torch.allclose(after[3:], before[3:], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_begins_at_its_base_and_off_it_is_its_base(base, kind, tied) -> None:
    plain = _logits(build_model(base(tied)).module)
    built = build_model(base(tied), _lora(**KINDS[kind]))
    assert torch.equal(_logits(built.module), plain) and built.kind == "adapter"
    _stir(built)
    assert (_logits(built.module) - plain).abs().max() > 0.1
    with built.module.disable_adapter():
        assert torch.equal(_logits(built.module), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_adapter_comes_back_bit_for_bit_here_and_in_plain_peft(base, tmp_path, kind, tied) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = base(tied)
    built = _stir(build_model(settings, _lora(**KINDS[kind])))
    logits, folder = _logits(built.module), _save(built, tmp_path / "saved")
    assert torch.equal(_logits(build_model(ModelConfig(name=str(folder)), train=False).module), logits)
    plain: Any = AutoModelForCausalLM.from_pretrained(settings.name)
    assert torch.equal(_logits(PeftModel.from_pretrained(plain, folder).eval()), logits)
    (folder / "manifest.json").unlink()  # now it's any folder of PEFT's
    assert torch.equal(_logits(build_model(ModelConfig(name=str(folder)), train=False).module), logits)
    # further training begins where it ended: the adapter merged, the new one neutral
    onward = build_model(ModelConfig(name=str(folder)), _lora())
    assert (_logits(onward.module) - logits).abs().max() < 2e-5


@pytest.mark.parametrize("tied", [False, True])
def test_copies_are_trained_beside_the_adapter_with_embeddings_undecayed(base, tied) -> None:
    """Untied: two copies of 37 x 16; tied: one, under the name of the embeddings."""
    built = build_model(
        base(tied), _lora(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    )
    groups = {group["name"]: group for group in parameter_groups(built, 0.1)}
    copies = [name for name in trainable_parameters(built) if "lora" not in name]
    both = ["model.embed_tokens.modules_to_save.weight", "lm_head.modules_to_save.weight"]
    assert copies == both[: 1 if tied else 2]
    assert groups["no_decay"]["names"] == copies[:1] and groups["no_decay"]["weight_decay"] == 0
    assert set(groups["decay"]["names"]) == set(trainable_parameters(built)) - set(copies[:1])
    every = all_parameters(built.module, {}, tied=True)
    assert not every["model.embed_tokens.weight"].requires_grad and not every["lm_head.weight"].requires_grad
    assert model_facts(built).adapter == model_facts(built).trainable == (1 if tied else 2) * 592 + 2 * 64
    told = source_facts(resolve_model(base(tied)), built.adapter)
    assert told["trainable"] == model_facts(built).trainable
    assert told["adapter"].startswith("LoRA on 2 layers (q_proj), in full ")


def test_every_parameter_of_experts_has_a_name_of_its_own(tiny) -> None:
    """Wrappers of two parameters of one module stand in each other: 2 blocks x 2 weights x A and B."""
    built = build_model(tiny(model_type="mixtral", num_local_experts=4), _lora(target_modules=["mlp"]))
    assert len(all_parameters(built.module, {})) == len(list(built.module.parameters()))
    assert len(trainable_parameters(built)) == 8 == sum(len(g["names"]) for g in parameter_groups(built, 0.1))


@pytest.mark.parametrize("kind", ["the head too", "embeddings in full", "both ends in full"])
@pytest.mark.parametrize("tied", [False, True])
def test_log_probs_in_chunks_are_those_of_the_logits_and_the_reference_is_the_base(
    base, batch, kind, tied
) -> None:
    built = build_model(base(tied), _lora(**KINDS[kind]))
    policy, reference = LocalPolicy(built.module), reference_of(built)
    assert torch.allclose(policy.logps(batch), reference.logps(batch), atol=1e-6)
    _stir(built)
    with torch.no_grad():
        out = built.module(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
        )
        rows = out.logits.flatten(0, 1)[batch.source].log_softmax(-1)
        expected = rows.gather(1, batch.target[:, None])[:, 0]
    assert torch.allclose(policy.logps(batch), expected, atol=1e-5)
    plain = LocalPolicy(build_model(base(tied)).module)
    assert torch.allclose(reference.logps(batch), plain.logps(batch), atol=1e-6)
    policy.logps(batch).sum().backward()
    grads = {name: parameter.grad for name, parameter in trainable_parameters(built).items()}
    assert all(grad is not None and bool(grad.any()) for grad in grads.values())


@pytest.mark.parametrize(
    ("adapter", "config", "said"),
    [
        (
            _lora(modules_to_save=["nothing"]),
            {},
            "no module of the model is named 'nothing'; choose of: .*norm",
        ),
        (_lora(modules_to_save=["rotary_emb"]), {}, "'rotary_emb' has no weights"),
        (_lora(modules_to_save=["mlp"]), {}, "gate_proj would be trained in full and get an adapter too"),
        (
            _lora(modules_to_save=["embed_tokens"], target_modules=["lm_head"]),
            {"tie_word_embeddings": True},
            "lm_head would be trained in full and get an adapter too",
        ),
        (
            _lora(modules_to_save=["wte"]),
            {"model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 1, "tie_word_embeddings": True},
            "'wte' is tied to another module",
        ),
        (
            _lora(use_dora=True),
            {"model_type": "mixtral", "num_local_experts": 4},
            r"adapter.use_dora: .*experts",
        ),
        (
            _lora(dropout=0.1),
            {"model_type": "mixtral", "num_local_experts": 4},
            r"adapter.dropout: .*experts",
        ),
    ],
)
def test_what_can_not_be_trained_so_is_refused_before_weights_are_read(tiny, adapter, config, said) -> None:
    with pytest.raises(UsageError, match=said):
        source_facts(resolve_model(tiny(**config)), adapter)


def test_copies_that_plain_peft_parted_are_refused_where_the_base_ties_them(base, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = base(True)
    config = LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM"
    )
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(settings.name), config)
    wrapped.save_pretrained(tmp_path / "peft")
    with pytest.raises(CheckpointError, match=r"WEIGHTS-TIES.*parted the head from the embeddings"):
        build_model(ModelConfig(name=str(tmp_path / "peft")), train=False)


def test_a_copy_of_what_a_surgery_answers_for_is_refused(tiny) -> None:
    def add(model: Any, generator: torch.Generator) -> Report:
        model.lm_head.shift = nn.Parameter(torch.zeros(37))
        return Report(changed=("lm_head",))

    surgery = Surgery(name="shift", phase="after_load", apply=add, trainable=("lm_head.shift",))
    with pytest.raises(UsageError, match="'lm_head' holds weights that a surgery added or trains"):
        build_model(tiny(), _lora(modules_to_save=["lm_head"]), [("toy", surgery)])


def test_a_manifest_spells_presets_out(tiny) -> None:
    built = build_model(tiny(), _lora(target_modules=["attention"], modules_to_save=["norm"]))
    assert built.adapter.target_modules == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert built.adapter.modules_to_save == ["model.norm"]
