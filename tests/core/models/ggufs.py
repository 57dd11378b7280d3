"""Tiny HF folders with a trained byte-level BPE tokenizer, to be written as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llmfw.core.models.tokenizer_training import trained_tokenizer
from llmfw.core.schema import TokenizerConfig

TEXTS = [f"The {i} quick brown foxes jump over {i * i} lazy dogs, naïvely.\n" for i in range(60)]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 77,
    "initializer_range": 0.3,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": [2, 5],
}


def tokenizer_folder(kind: str = "bpe", model_type: str = "llama") -> Path:
    return trained_tokenizer(TokenizerConfig(train=kind, vocab_size=320), TEXTS, model_type)


def hf_folder(folder: Path, model_type: str = "llama", tokenizer: Any = None, **config: Any) -> Any:
    """Save a model of random weights (norms and biases included) and a tokenizer; give the model."""
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = tokenizer or PreTrainedTokenizerFast.from_pretrained(tokenizer_folder(model_type=model_type))
    torch.manual_seed(3)
    keys = SHAPE | {"vocab_size": len(tokenizer) + 3} | config
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **keys)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(6, 46).reshape(2, 20)
    with torch.no_grad():
        return model(ids).logits
