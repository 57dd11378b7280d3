"""What an export writes: bases, generation configs, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmfw.core.errors import UsageError
from llmfw.core.models import build_model, resolve_model, save_weights, weights_manifest
from llmfw.core.models.export import (
    base_of,
    refuse_trained_base,
    stored_dtype,
    weight_bytes,
    write_adapter,
    write_base,
    write_generation_config,
    write_model,
)
from llmfw.core.models.source import ModelSource
from llmfw.core.schema import AdapterConfig, ModelConfig


def _adapter(tmp_path: Path, model: ModelConfig) -> ModelSource:
    """A saved LoRA whose B isn't zero."""
    built = build_model(model, AdapterConfig(kind="lora", r=2), seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in built.module.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
    save_weights(built, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    return resolve_model(str(tmp_path / "run"))


def test_a_base_from_a_seed_is_written_and_a_folder_is_named_without_its_parents(tiny, tmp_path: Path):
    made = base_of(_adapter(tmp_path, tiny()))
    assert made.written and made.name == "base" and "seed" in made.why
    own = tmp_path / "home" / "my-base"
    build_model(tiny(), train=False).module.save_pretrained(own)
    (tmp_path / "two").mkdir()
    kept = base_of(_adapter(tmp_path / "two", ModelConfig(name=str(own))))
    assert (kept.name, kept.written) == ("my-base", False)
    assert base_of(_adapter(tmp_path / "two", ModelConfig(name=str(own))), "me/it").name == "me/it"


def test_the_written_base_is_the_base_before_the_adapter(tiny, tmp_path: Path):
    source = _adapter(tmp_path, tiny())
    built = build_model(source, train=False)
    write_base(built, tmp_path / "base", max_shard_size="5GB")
    state = build_model(tiny(), train=False, seed=1).module.state_dict()
    written = load_file(tmp_path / "base" / "model.safetensors")
    assert written.keys() == state.keys() and all(written[name].equal(state[name]) for name in state)


def test_an_adapter_is_copied_bit_for_bit_with_another_base(tiny, tmp_path: Path):
    source = _adapter(tmp_path, tiny())
    write_adapter(source, tmp_path / "out", base_of(source, "me/base"))
    name = "adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/base" and str(tmp_path) not in json.dumps(config)


def test_an_adapter_beside_which_the_base_was_trained_is_refused(tiny, tmp_path: Path):
    source = _adapter(tmp_path, tiny())
    refuse_trained_base(source)
    save_file({"model.norm.weight": torch.ones(16)}, tmp_path / "run" / "surgeries.safetensors")
    with pytest.raises(UsageError, match="add --merge"):
        refuse_trained_base(source)


def test_a_model_is_written_in_another_dtype(tiny, tmp_path: Path):
    built = build_model(tiny(), train=False)
    assert write_model(built, tmp_path, dtype="bfloat16", max_shard_size="5GB") == ()
    assert stored_dtype(tmp_path) == "bfloat16"
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


def test_sizes_count_tied_weights_once(tiny):
    """37 tokens of width 16, in 2 bytes each: untying the head adds 37 * 16 * 2 bytes."""
    tied = build_model(tiny(tie_word_embeddings=True), train=False).module
    untied = build_model(tiny(tie_word_embeddings=False), train=False).module
    assert weight_bytes(untied, "bfloat16") - weight_bytes(tied, "bfloat16") == 37 * 16 * 2
    assert weight_bytes(tied, "float32") == 2 * weight_bytes(tied, "bfloat16")


def test_a_generation_config_that_only_names_a_temperature_is_written_as_one_that_samples(
    tiny, tmp_path: Path
):
    module = build_model(tiny(), train=False).module
    module.generation_config.temperature = 0.7
    write_generation_config(module, tmp_path)
    found = json.loads((tmp_path / "generation_config.json").read_text())
    assert found["do_sample"] is True and found["temperature"] == 0.7
