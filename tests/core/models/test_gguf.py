"""HF folders written as GGUF, and read back through transformers' own loader."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.gguf import write_gguf

from .ggufs import TEXTS, hf_folder, logits, tokenizer_folder


def plain(file: Path):
    """The file as plain transformers loads it."""
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_in_f32_gives_the_folders_logits_and_ids(tmp_path: Path, kind: str, tied: bool) -> None:
    model = hf_folder(tmp_path / "hf", kind, tie_word_embeddings=tied)
    write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype="f32")
    other, tokenizer = plain(tmp_path / "m.gguf")
    assert (logits(model) - logits(other)).abs().max() <= 1e-5
    ours = PreTrainedTokenizerFast.from_pretrained(tmp_path / "hf")
    for text in [*TEXTS[:5], "<|im_start|>user\nhé 12\r\n<|im_end|>", "日本 🙂\x00"]:
        assert tokenizer(text)["input_ids"] == ours(text)["input_ids"]
    assert tokenizer.chat_template == ours.chat_template
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["m.gguf"]


@pytest.mark.parametrize(("dtype", "relative"), [("f16", 2**-11), ("bf16", 2**-8), ("q8_0", 1 / 127)])
def test_smaller_dtypes_round_each_value_once(tmp_path: Path, dtype: str, relative: float) -> None:
    """f16 has 11 significant bits, bf16 8; of q8_0 a value is off by half of the block's largest / 127."""
    model = hf_folder(tmp_path / "hf")
    write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype=dtype)
    other, _ = plain(tmp_path / "m.gguf")
    for name, value in model.state_dict().items():
        found = other.state_dict()[name]
        if value.dim() == 1:
            assert torch.equal(value, found), name
        else:
            largest = value.abs().max() if dtype == "q8_0" else value.abs()
            assert ((value - found).abs() <= largest * relative + 1e-7).all(), name


def test_rows_that_are_no_whole_blocks_are_f16_and_that_is_said(tmp_path: Path, caplog) -> None:
    hf_folder(tmp_path / "hf", intermediate_size=80)
    with caplog.at_level(logging.WARNING):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype="q8_0")
    assert "ffn_down" in caplog.text and "it's f16" in caplog.text
    plain(tmp_path / "m.gguf")


def test_single_bytes_have_no_merges_and_are_expressed_exactly(tmp_path: Path) -> None:
    hf_folder(tmp_path / "hf", tokenizer=byte_tokenizer(77), eos_token_id=[258, 260])
    write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype="f32")
    _, tokenizer = plain(tmp_path / "m.gguf")
    assert tokenizer("Aé<eos>")["input_ids"] == [65, 195, 169, 258]


def test_the_window_of_mistral_ends_the_context(tmp_path: Path, caplog) -> None:
    hf_folder(tmp_path / "hf", "mistral", sliding_window=16)
    with caplog.at_level(logging.WARNING):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")
    assert "sliding window of 16" in caplog.text
    assert plain(tmp_path / "m.gguf")[0].config.max_position_embeddings == 16


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 77}
LONG = {
    "rope_type": "llama3",
    "factor": 8.0,
    "rope_theta": 5e5,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("kind", "config", "what"),
    [
        ("llama", {"attention_bias": True}, "biases in attention"),
        ("llama", {"mlp_bias": True}, "biases in the MLP"),
        ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("llama", {"rope_parameters": YARN}, "rotary scaling 'yarn'"),
        ("llama", {"rope_parameters": LONG}, "other wave lengths"),
    ],
)
def test_what_a_file_can_not_say_is_refused(tmp_path: Path, kind: str, config: dict, what: str) -> None:
    hf_folder(tmp_path / "hf", kind, **config)
    with pytest.raises(UsageError, match=f"GGUF-ARCHITECTURE.*{what}"):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_another_architecture_is_refused_with_those_that_can_be(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UsageError, match="GGUF-ARCHITECTURE.*a mamba model.*llama, mistral, qwen2"):
        write_gguf(tmp_path, tmp_path / "m.gguf")


def test_another_dtype_and_a_folder_as_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="GGUF-DTYPE.*f32, f16, bf16, q8_0"):
        write_gguf(tmp_path, tmp_path / "m.gguf", dtype="q4_k")
    with pytest.raises(UsageError, match="GGUF-TARGET"):
        write_gguf(tmp_path, tmp_path)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_a_tokenizer_that_is_no_byte_level_bpe_is_refused(tmp_path: Path, kind: str) -> None:
    hf_folder(tmp_path / "hf", tokenizer=PreTrainedTokenizerFast.from_pretrained(tokenizer_folder(kind)))
    with pytest.raises(UsageError, match="GGUF-TOKENIZER.*kind (Unigram|WordPiece) can't be written"):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")


def test_a_split_that_has_no_name_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder())
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    hf_folder(tmp_path / "hf", tokenizer=tokenizer)
    with pytest.raises(UsageError, match="GGUF-TOKENIZER.*no name for how"):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")


def test_ids_beyond_the_model_are_refused(tmp_path: Path) -> None:
    hf_folder(tmp_path / "hf", vocab_size=300)
    with pytest.raises(UsageError, match="VOCABULARY.*reach 319, the model has 300"):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    hf_folder(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    save_file({**load_file(file), "model.layers.0.gate.weight": torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(UsageError, match="GGUF-TENSOR.*no place for model.layers.0.gate.weight"):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")


def test_a_value_beyond_f16_leaves_nothing_behind(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    hf_folder(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][0, 0] = 1e6
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="GGUF-RANGE.*1e.06.*write bf16 or f32"):
        write_gguf(tmp_path / "hf", tmp_path / "m.gguf")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken", "gpt-4o", "smollm"])
def test_known_ways_to_split_words_are_named_and_read_back(tmp_path: Path, name: str) -> None:
    from gguf import GGUFReader
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if name != "smollm":
        split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder())
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    hf_folder(tmp_path / "hf", tokenizer=tokenizer)
    if name == "smollm":
        # merges over digits were learnt under another split, and the reader has no split of this name
        with pytest.raises(UsageError, match="GGUF-TOKENIZER.*differently"):
            write_gguf(tmp_path / "hf", tmp_path / "m.gguf")
        return
    write_gguf(tmp_path / "hf", tmp_path / "m.gguf", dtype="f32")
    assert GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"].contents() == name
    _, other = plain(tmp_path / "m.gguf")
    text = "Don't MixCase 12345, naïve日本\r\n\n  x_1!"
    assert other(text)["input_ids"] == tokenizer(text)["input_ids"]
