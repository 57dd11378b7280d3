"""Tiny encoder-decoders and tokenizers with the marks of T5's and BART's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from llmfw.core.models.byte_level import byte_tokenizer

T5 = {
    "model_type": "t5",
    "vocab_size": 261,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
BART = {
    "model_type": "bart",
    "vocab_size": 261,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "dropout": 0.0,
}
MT5 = {**T5, "model_type": "mt5"}
PEGASUS = {**BART, "model_type": "pegasus", "max_position_embeddings": 320}
WORDS = ("say", "it", "is", "no,", "I", "think", *map(str, range(22)))


def written(config: dict[str, Any]) -> str:
    """The config as a user types it behind ``model.config=``."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in config.items()) + "}"


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Unigrams with a space before each word, ``</s>`` after every text, sentinels: as T5's."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS)]
    letters = sorted(set("".join(WORDS)) | {"▁"})
    vocabulary = [(piece, 0.0 if piece[0] == "<" else -1.0) for piece in pieces]
    core = Tokenizer(models.Unigram([*vocabulary, *((one, -9.0) for one in letters)], unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.add_special_tokens([AddedToken(token, special=True) for token in ("<pad>", "</s>", "<unk>")])
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<extra_id_0>", "<extra_id_1>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def bart_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes with ``<s>`` before and ``</s>`` after every text, as BART's."""
    core = Tokenizer(models.BPE(vocab=dict(byte_tokenizer().get_vocab()), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in ("<pad>", "<s>", "</s>", "<mask>")])
    marks = [(token, core.token_to_id(token)) for token in ("<s>", "</s>")]
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="<mask>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make(config: dict[str, Any], *, dtype: torch.dtype = torch.float32, wide: float = 0.0) -> Any:
    """A model of a config in evaluation mode, its matrices drawn anew with standard deviation ``wide``."""
    keys = dict(config)
    made = AutoConfig.for_model(keys.pop("model_type"), **keys)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(made, dtype=dtype, attn_implementation="sdpa").eval()
        for parameter in model.parameters() if wide else ():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=wide)
    return model


def save_folder(place: Path, config: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    start = tokenizer.eos_token_id if config["model_type"] == "bart" else tokenizer.pad_token_id
    ids["vocab_size"] = len(tokenizer)
    model = make({**config, **ids, "bos_token_id": tokenizer.bos_token_id, "decoder_start_token_id": start})
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place
