from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models import (
    LocalPolicy,
    build_model,
    load_tokenizer,
    resolve_model,
    save_weights,
    weights_manifest,
)
from llmfw.core.models.parameters import trainable_parameters
from llmfw.core.records import Report, Surgery
from llmfw.core.schema import AdapterConfig, ModelConfig, Root

LORA = AdapterConfig(kind="lora", r=2)


def write(built, folder: Path, **more) -> str:
    save_weights(built, folder)
    (folder / "manifest.json").write_text(json.dumps(weights_manifest(built, **more)))
    return str(folder)


def shake(built):
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in trainable_parameters(built).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
    return built


def test_a_saved_adapter_is_loadable_by_plain_peft(tiny, batch, tmp_path) -> None:
    from peft import AutoPeftModelForCausalLM

    build_model(tiny()).module.save_pretrained(tmp_path / "base")
    built = shake(build_model(ModelConfig(name=str(tmp_path / "base")), LORA))
    folder = write(built, tmp_path / "saved")
    plain = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert torch.equal(LocalPolicy(plain).logps(batch), LocalPolicy(built.module).logps(batch))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_full_model_is_a_plain_folder_of_transformers(tiny, batch, tmp_path, tied) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = load_tokenizer(ModelConfig(name="tiny-llama"))
    built = shake(build_model(tiny(vocab_size=261, tie_word_embeddings=tied), tokenizer=tokenizer))
    folder = write(built, tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    for name, value in built.module.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value)
    assert AutoTokenizer.from_pretrained(folder)("hé")["input_ids"] == list("hé".encode())
    again = build_model(ModelConfig(name=folder), train=False)
    assert torch.equal(LocalPolicy(again.module).logps(batch), LocalPolicy(built.module).logps(batch))


def test_a_mixture_whose_tensors_transformers_renames_survives_the_round_trip(batch, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    config = {
        "model_type": "mixtral",
        "vocab_size": 37,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "initializer_range": 0.3,
    }
    built = shake(build_model(ModelConfig(name="x", config=config)))
    folder = write(built, tmp_path / "saved")
    again = build_model(ModelConfig(name=folder), train=False)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    for name, value in built.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value) and torch.equal(
            plain.state_dict()[name], value
        ), name


def test_a_saved_tokenizer_is_the_tokenizer_of_the_saved_model(tiny, tmp_path) -> None:
    tokenizer = load_tokenizer(ModelConfig(name="tiny-llama"))
    tokenizer.chat_template = "changed"
    folder = write(build_model(ModelConfig(name="tiny-llama"), LORA, tokenizer=tokenizer), tmp_path / "with")
    assert load_tokenizer(ModelConfig(name=folder)).chat_template == "changed"
    folder = write(build_model(ModelConfig(name="tiny-llama"), LORA), tmp_path / "without")
    assert len(load_tokenizer(ModelConfig(name=folder))) == 261


def test_the_manifest_holds_what_rebuilding_needs(tiny, tmp_path) -> None:
    config = Root(plugins=["a", "b"])
    needed = Surgery(name="s", phase="after_load", apply=lambda m, g: Report(changed=("x",)))
    spare = Surgery(
        name="t", phase="after_load", apply=lambda m, g: Report(changed=("x",)), required_on_load=False
    )
    built = build_model(tiny(), LORA, [("a", needed), ("b", spare)], seed=4)
    manifest = weights_manifest(built, config, {"a": {"k": 2}, "b": {"z": 1}})
    assert json.loads(json.dumps(manifest)) == manifest
    assert (
        manifest["plugins"] == ["a", "b"]
        and manifest["requires"] == ["a"]
        and manifest["settings"] == {"a": {"k": 2}}
    )
    assert (manifest["kind"], manifest["seed"], manifest["adapter"]["r"]) == ("adapter", 4, 2)
    assert manifest["model"]["config"] == tiny().config and manifest["base_hash"] == built.base_hash


def test_a_saved_adapter_is_merged_when_training_goes_on_with_a_new_one(tiny, batch, tmp_path) -> None:
    """The new run starts where the old one ended; its own folder then needs both, and finds them."""
    first = shake(build_model(tiny(), LORA, seed=1))
    one = write(first, tmp_path / "one")
    second = build_model(ModelConfig(name=one), replace(LORA, r=3), seed=2)
    torch.testing.assert_close(
        LocalPolicy(second.module).logps(batch), LocalPolicy(first.module).logps(batch), rtol=0, atol=1e-5
    )
    assert second.kind == "adapter" and second.base_hash != first.base_hash
    assert all("lora_" in name for name in trainable_parameters(second))
    shake(second)
    two = write(second, tmp_path / "two")
    again = build_model(ModelConfig(name=two), train=False)
    assert torch.equal(LocalPolicy(again.module).logps(batch), LocalPolicy(second.module).logps(batch))
    full = build_model(ModelConfig(name=one), seed=2)
    assert full.kind == "full" and all(parameter.requires_grad for parameter in full.module.parameters())


def test_an_adapter_over_a_fully_trained_model_finds_it_again(tiny, batch, tmp_path) -> None:
    one = write(shake(build_model(tiny(), seed=1)), tmp_path / "one")
    built = shake(build_model(ModelConfig(name=one), LORA, seed=2))
    again = build_model(ModelConfig(name=write(built, tmp_path / "two")), train=False)
    assert torch.equal(LocalPolicy(again.module).logps(batch), LocalPolicy(built.module).logps(batch))
    assert resolve_model(str(tmp_path / "two")).base.name == one


def test_a_model_that_is_not_to_be_trained_is_frozen_and_keeps_its_adapter(tiny, tmp_path) -> None:
    folder = write(build_model(tiny(), LORA, seed=1), tmp_path / "one")
    built = build_model(ModelConfig(name=folder), LORA, train=False)
    assert trainable_parameters(built) == {} and hasattr(built.module, "peft_config")


def test_a_damaged_adapter_is_one_line(tiny, tmp_path) -> None:
    folder = write(build_model(tiny(), LORA, seed=1), tmp_path / "one")
    path = tmp_path / "one" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors") as caught:
        build_model(ModelConfig(name=folder), train=False)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_by_the_manifests_hashes(tiny, tmp_path) -> None:
    from llmfw.core.checkpoint.manifest import Manifest, file_digest

    folder = tmp_path / "one"
    built = build_model(tiny(), LORA, seed=1)
    save_weights(built, folder)
    files = {path.name: file_digest(path) for path in folder.iterdir()}
    (folder / "manifest.json").write_text(
        Manifest(step=1, files=files, about=weights_manifest(built)).to_json()
    )
    build_model(ModelConfig(name=str(folder)), train=False)
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors"):
        build_model(ModelConfig(name=str(folder)), train=False)


def test_companion_files_carry_the_hash_of_their_base(tiny, tmp_path) -> None:
    def draft(model, generator):
        with torch.random.fork_rng():
            return Report(companions={"draft": torch.nn.Linear(2, 2)})

    built = build_model(
        tiny(),
        LORA,
        [("toy", Surgery(name="d", phase="after_load", apply=draft, trainable=("companions.draft.*",)))],
    )
    save_weights(built, tmp_path)
    with safe_open(tmp_path / "draft.safetensors", framework="pt") as handle:
        assert handle.metadata()["base_hash"] == built.base_hash and set(handle.keys()) == {"weight", "bias"}


def test_a_base_that_is_gone_is_named(tiny, tmp_path) -> None:
    build_model(tiny()).module.save_pretrained(tmp_path / "base")
    folder = write(build_model(ModelConfig(name=str(tmp_path / "base")), LORA), tmp_path / "saved")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"no model named .*base"):
        build_model(ModelConfig(name=folder), train=False)
