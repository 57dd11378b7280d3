"""Encoder-decoder models (T5, BART and their kin): which class loads one, how its decoder's rows begin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmfw.core.errors import UsageError

if TYPE_CHECKING:
    from llmfw.core.models.source import ModelSource

_POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings", "max_decoder_position_embeddings")
_OTHERS = ("encoder-decoder", "fsmt", "prophetnet")
"""Two models joined, two vocabularies, several predictions a position: no one head over one row."""
_ROLES = ("pad_token_id", "bos_token_id", "eos_token_id")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What the rows of an encoder-decoder depend on beside its tokenizer: the encoder reads the prompt, the
    decoder writes the answer after ``start``.
    """

    start: int
    """Id that stands before every answer (``decoder_start_token_id``)."""
    forced: int | None = None
    """Id with which every generated answer begins (``forced_bos_token_id``), e.g. a language; None: none."""
    positions: int | None = None
    """Longest row of either side, tokens; None: no limit (relative positions)."""


def is_encoder_decoder(config: Any) -> bool:
    """Whether a transformers config describes an encoder with a decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def auto_class(config: Any) -> Any:
    """The class of transformers that builds and loads the language model of a config.

    Raises:
        UsageError: an encoder-decoder that doesn't read text, or one that is put together of two models.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if not is_encoder_decoder(config):
        return AutoModelForCausalLM
    mapping: Any = AutoModelForSeq2SeqLM._model_mapping
    speech = hasattr(config, "num_mel_bins") or "seamless" in config.model_type
    if type(config) not in mapping or speech or config.model_type in _OTHERS:
        raise UsageError(
            "ENCODER-DECODER",
            f"{config.model_type!r} isn't an encoder-decoder of text with one vocabulary and one head",
            mend="take one such as t5, mt5, bart, mbart, pegasus, marian or t5gemma",
            key="model.config.model_type",
        )
    return AutoModelForSeq2SeqLM


def sides_of(config: Any, generation_config: Any = None) -> Sides | None:
    """How rows of this model are laid out; None for a decoder-only model.

    Args:
        generation_config: transformers' ``model.generation_config``, which says what answers are forced to
            begin with, and may know the start token where the config doesn't.

    Raises:
        UsageError: nobody says with which token the decoder begins.
    """
    if not is_encoder_decoder(config):
        return None
    start = _first_of((config, generation_config), "decoder_start_token_id")
    forced = _first_of((generation_config,), "forced_bos_token_id")
    if start is None:
        raise UsageError(
            "DECODER-START",
            f"the config of this {config.model_type} has no decoder_start_token_id",
            mend="write it into config.json (T5: the padding token's id; BART: the end-of-text token's)",
            key="model.config.decoder_start_token_id",
        )
    text = config.get_text_config()
    limits = [
        int(value) for owner in (config, text) for name in _POSITIONS if (value := getattr(owner, name, None))
    ]
    return Sides(start=start, forced=forced, positions=min(limits, default=None))


def _first_of(owners: Iterable[Any], name: str) -> int | None:
    found = (getattr(owner, name, None) for owner in owners)
    return next((int(value) for value in found if value is not None), None)


def with_ids(source: ModelSource, tokenizer: Any) -> ModelSource:
    """A source from scratch whose config names the tokenizer's special tokens, where the settings don't.

    transformers' defaults are ids of the published models' tokenizers, which mean something else in another
    one. The decoder's first token plays the same part as in the defaults: padding (T5), end of text (BART) or
    beginning of text (Blenderbot). Other sources, and decoder-only models, stay as they are.
    """
    if source.kind != "scratch":
        return source
    from llmfw.core.models.configs import load_model_config
    from llmfw.core.models.turns import turn_end

    config = load_model_config(source)
    if not is_encoder_decoder(config):
        return source
    pad, end, turn = tokenizer.pad_token_id, tokenizer.eos_token_id, turn_end(tokenizer)
    own = {name: getattr(tokenizer, name) for name in _ROLES if getattr(tokenizer, name) is not None}
    usual = {name: getattr(type(config)(), name, None) for name in (*_ROLES, "decoder_start_token_id")}
    start = usual["decoder_start_token_id"]
    roles = ("pad_token_id", "eos_token_id", "bos_token_id")
    role = next((name for name in roles if start is not None and usual[name] == start), "pad_token_id")
    ids: dict[str, Any] = {**own, "decoder_start_token_id": own.get(role, pad)}
    if pad == end:
        ids["pad_token_id"] = None  # an embedding's padding row gets no gradient, and an end is to be learnt
    if turn not in (None, end):
        ids["eos_token_id"] = [end, turn]
    if getattr(config, "forced_eos_token_id", None) is not None and end is not None:
        ids["forced_eos_token_id"] = end
    given = source.model.config
    return replace(
        source,
        model=replace(
            source.model,
            config={**given, **{name: value for name, value in ids.items() if name not in given}},
        ),
    )
