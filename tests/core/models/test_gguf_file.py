"""GGUF files named as models: looked at, refused, converted once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models import build_model, load_tokenizer, resolve_model, save_weights, weights_manifest
from llmfw.core.models.gguf import write_gguf
from llmfw.core.models.gguf_file import gguf_folder, gguf_note, look
from llmfw.core.schema import AdapterConfig, ModelConfig, TokenizerConfig

from .ggufs import TEXTS, hf_folder, logits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny Llama in f32, with an end of turn beside its end of text."""
    hf_folder(tmp_path / "hf")
    write_gguf(tmp_path / "hf", tmp_path / "tiny.gguf", dtype="f32")
    return tmp_path / "tiny.gguf"


def edited(file: Path, name: str, change) -> Path:
    """A copy of the file written anew by the library; ``change(fields, tensors)`` edits what is written."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(file)
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    extra: dict = {}
    tensors = {one.name: one.data.copy() for one in reader.tensors}
    change(fields, tensors, extra)
    target = file.with_name(name)
    writer = GGUFWriter(target, "llama")
    for key, field in fields.items():
        if key != "general.architecture":
            sub = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub)
    for key, value in extra.items():
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](key, value)
    for key, value in tensors.items():
        writer.add_tensor(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_a_file_is_a_model_with_its_tokenizer(file: Path, tmp_path: Path) -> None:
    source = resolve_model(str(file))
    assert source.kind == "gguf" and resolve_model(source.model) == source
    built, tokenizer = build_model(source, train=False), load_tokenizer(source)
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert torch.equal(logits(built.module), logits(whole))
    assert built.config.eos_token_id == [2, 5]  # the end of a turn, which transformers' reading leaves out
    ours = load_tokenizer(ModelConfig(name=str(tmp_path / "hf")))
    assert len(tokenizer) == built.config.vocab_size == len(ours) + 3  # [PAD320] and on stand for no text
    assert tokenizer.chat_template == ours.chat_template
    assert all(tokenizer(text)["input_ids"] == ours(text)["input_ids"] for text in TEXTS)
    assert tokenizer("<|endoftext|>")["input_ids"] == ours("<|endoftext|>")["input_ids"]
    assert tokenizer.model_max_length == 77


def test_a_files_tokenizer_can_be_named_for_another_model(file: Path, tmp_path: Path) -> None:
    named = load_tokenizer(ModelConfig(name="tiny-llama"), TokenizerConfig(name=str(file)))
    assert named("say 12")["input_ids"] == load_tokenizer(resolve_model(str(file)))("say 12")["input_ids"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="TOKENIZER.*holds no tokenizer"):
        load_tokenizer(ModelConfig(name="tiny-llama"), TokenizerConfig(name=str(tmp_path / "empty")))


def test_a_file_is_converted_once_also_under_another_name(file: Path, own_cache: Path) -> None:
    first = gguf_folder(file)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    copy = file.with_name("copy.gguf")
    shutil.copy(file, copy)
    assert gguf_folder(copy) == first and (first / "model.safetensors").stat().st_mtime_ns == stamp
    copy.write_bytes(file.read_bytes() + bytes(32))
    assert gguf_folder(copy) != first


def test_the_note_says_what_was_dequantised(file: Path, tmp_path: Path) -> None:
    assert gguf_note(file) == "tiny.gguf holds tensors of 21 F32, read as float32"
    write_gguf(tmp_path / "hf", tmp_path / "small.gguf", dtype="q8_0")
    assert gguf_note(tmp_path / "small.gguf") == (
        "small.gguf holds tensors of 16 Q8_0, 5 F32, dequantised to float32: full fine-tuning starts from "
        "the dequantised values"
    )


def test_an_adapter_over_a_file_finds_its_base_again(file: Path, tmp_path: Path) -> None:
    built = build_model(resolve_model(str(file)), AdapterConfig(kind="lora", r=2), seed=5)
    for name, value in built.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    save_weights(built, tmp_path / "saved")
    import json

    (tmp_path / "saved" / "manifest.json").write_text(json.dumps(weights_manifest(built)))
    again = build_model(resolve_model(str(tmp_path / "saved")), train=False)
    assert torch.equal(logits(again.module), logits(built.module))
    hf_folder(tmp_path / "other", rms_norm_eps=1e-3, initializer_range=0.1)
    write_gguf(tmp_path / "other", file, dtype="f32")
    with pytest.raises(CheckpointError, match="WEIGHTS-BASE"):
        build_model(resolve_model(str(tmp_path / "saved")), train=False)


def test_rotary_scaling_of_llama_3_comes_back(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "rope_theta": 5e5,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = hf_folder(tmp_path / "hf", rope_parameters=rope)
    write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype="f32")
    built = build_model(resolve_model(str(tmp_path / "m.gguf")), train=False)
    assert built.config.rope_parameters == rope and torch.equal(logits(built.module), logits(model))


def test_linear_rotary_scaling_comes_back(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    model = hf_folder(tmp_path / "hf", rope_parameters=rope)
    write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype="f32")
    built = build_model(resolve_model(str(tmp_path / "m.gguf")), train=False)
    assert built.config.rope_parameters == rope and torch.equal(logits(built.module), logits(model))


def test_unknown_rotary_scaling_is_refused(file: Path) -> None:
    def longrope(fields, tensors, extra):
        extra["llama.rope.scaling.type"] = "longrope"

    with pytest.raises(UsageError, match="GGUF-ROPE.*rotary scaling 'longrope'"):
        gguf_folder(edited(file, "long.gguf", longrope))


def test_biases_of_attention_are_read(file: Path) -> None:
    """A bias of ones on all queries and keys, in a file that names none in its header."""
    import numpy as np

    def biased(fields, tensors, extra):
        for layer in range(2):
            for part, size in (("q", 64), ("k", 32), ("v", 32), ("output", 64)):
                tensors[f"blk.{layer}.attn_{part}.bias"] = np.ones(size, dtype=np.float32)

    built = build_model(resolve_model(str(edited(file, "biased.gguf", biased))), train=False)
    assert built.config.attention_bias
    assert (built.module.model.layers[1].self_attn.q_proj.bias == 1).all()


@pytest.mark.parametrize(
    ("change", "code", "what"),
    [
        (lambda raw: b"PK" + raw[2:], "GGUF-FILE", "no GGUF file: it begins with"),
        (lambda raw: b"<html>", "GGUF-FILE", "no GGUF file"),
        (lambda raw: raw[:4] + raw[7:3:-1] + raw[8:], "GGUF-FILE", "big-endian"),
        (lambda raw: raw[: len(raw) // 2], "GGUF-DAMAGED", "cut short"),
        (lambda raw: raw[:-64], "GGUF-DAMAGED", "cut short"),
        (lambda raw: raw[:40], "GGUF-DAMAGED", "cut short"),
        (lambda raw: raw[:6], "GGUF-DAMAGED", "cut short"),
        (lambda raw: raw[:24] + b"\xff" * 40 + raw[64:], "GGUF-DAMAGED", "damaged"),
    ],
)
def test_a_damaged_file_is_one_line(file: Path, change, code: str, what: str) -> None:
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises((UsageError, CheckpointError), match=code) as caught:
        load_tokenizer(resolve_model(str(file)))
    assert what in str(caught.value) and "\n" not in str(caught.value) and "tiny.gguf" in str(caught.value)


def test_a_part_of_a_split_file_is_refused(file: Path) -> None:
    part = file.with_name("tiny-00001-of-00002.gguf")
    shutil.copy(file, part)
    with pytest.raises(UsageError, match="GGUF-FILE.*one part of a split.*llama-gguf-split --merge"):
        look(part)


def test_a_file_without_a_tokenizer_is_refused(file: Path) -> None:
    def bare(fields, tensors, extra):
        for key in [key for key in fields if key.startswith("tokenizer.")]:
            del fields[key]

    with pytest.raises(UsageError, match="GGUF-FILE.*without a tokenizer"):
        look(edited(file, "bare.gguf", bare))


def test_an_architecture_that_transformers_can_not_read_is_refused(file: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(file.with_name("odd.gguf"), "rwkv7")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UsageError, match="GGUF-ARCHITECTURE.*rwkv7.*use the model's HF folder"):
        gguf_folder(file.with_name("odd.gguf"))


def test_a_file_that_lacks_tensors_is_refused_and_leaves_nothing(file: Path, own_cache: Path) -> None:
    def fewer(fields, tensors, extra):
        del tensors["blk.1.ffn_up.weight"]

    with pytest.raises(CheckpointError, match=r"GGUF-DAMAGED.*1 tensors.*layers.1.mlp.up_proj.weight"):
        gguf_folder(edited(file, "fewer.gguf", fewer))
    assert [path for path in (own_cache / "models").iterdir() if path.is_dir()] == []


def test_values_without_a_place_are_told(file: Path, caplog) -> None:
    import numpy as np

    def more(fields, tensors, extra):
        tensors["blk.0.extra.weight"] = np.zeros((3, 5), dtype=np.float32)

    gguf_folder(edited(file, "more.gguf", more))
    assert "15 values have no place in a llama" in caplog.text
