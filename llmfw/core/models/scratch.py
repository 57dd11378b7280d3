"""Models made from scratch: what their config leaves open is taken from the tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmfw.core.models.configs import load_model_config
from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.source import ModelSource
from llmfw.core.models.turns import turn_end


def fitted(source: ModelSource, tokenizer: Any) -> tuple[ModelSource, list[str]]:
    """A source from scratch with the vocabulary size and special tokens of its tokenizer, where its config
    doesn't say them, and a sentence on what was filled in. Other sources stay as they are.

    transformers' defaults are those of published models: ids that mean something else in another tokenizer.
    """
    given = source.model.config
    if source.kind != "scratch" or "model_type" not in given:
        return source, []
    config, notes = dict(given), []
    if "vocab_size" not in given and "text_config" not in given:
        config["vocab_size"] = max(tokenizer.get_vocab().values()) + 1
        notes.append(f"model.config.vocab_size follows the tokenizer: {config['vocab_size']}")
    sized = replace(source, model=replace(source.model, config=config))
    if is_encoder_decoder(load_model_config(sized)):
        return sized, notes  # with_ids knows what an encoder-decoder needs
    pad, end, turn = tokenizer.pad_token_id, tokenizer.eos_token_id, turn_end(tokenizer)
    usual = {
        # an embedding's padding row gets no gradient: a token that is also something else can't be it
        "pad_token_id": pad if pad != end else None,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": end if turn in (None, end) else [end, turn],
    }
    filled = {name: value for name, value in usual.items() if name not in given}
    return replace(sized, model=replace(source.model, config={**config, **filled})), notes


def source_notes(source: ModelSource) -> list[str]:
    """What a user should know of a source's weights beside their name."""
    from pathlib import Path

    from llmfw.core.models.gguf_file import gguf_note

    return [gguf_note(Path(source.model.name))] if source.kind == "gguf" else []
