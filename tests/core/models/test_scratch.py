"""Models from scratch take from the tokenizer what their config leaves open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llmfw.core.models import fitted, load_model_config, resolve_model
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.floats import spelt, unspelt
from llmfw.core.schema import ModelConfig


def source(**config: object):
    return resolve_model(ModelConfig(name="mine", config={"model_type": "llama", **config}))


def test_size_and_special_tokens_follow_the_tokenizer_and_the_size_is_said() -> None:
    found, notes = fitted(source(hidden_size=32), byte_tokenizer())
    assert notes == ["model.config.vocab_size follows the tokenizer: 261"]
    config = load_model_config(found)
    assert (config.vocab_size, config.hidden_size) == (261, 32)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (256, 257, [258, 260])


def test_what_the_config_says_stays() -> None:
    given = {"vocab_size": 300, "pad_token_id": None, "bos_token_id": 5, "eos_token_id": 6}
    found, notes = fitted(source(**given), byte_tokenizer())
    assert notes == [] and found == source(**given)


def test_padding_with_the_end_of_text_leaves_the_embedding_without_a_padding_row() -> None:
    """An embedding's padding row gets no gradient, and the end of text has to be learnt."""
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    found, _ = fitted(source(), tokenizer)
    assert found.model.config["pad_token_id"] is None


def test_other_sources_stay_as_they_are(tmp_path: Path) -> None:
    hub = resolve_model("owner/name")
    assert fitted(hub, byte_tokenizer()) == (hub, [])
    incomplete = replace(source(), model=ModelConfig(name="mine", config={"hidden_size": 3}))
    assert fitted(incomplete, byte_tokenizer()) == (incomplete, [])


def test_infinities_are_spelt_as_transformers_spells_them() -> None:
    config = {"limit": (0.0, float("inf")), "a": {"b": [float("-inf"), 1, "Infinity"]}}
    said = spelt(config)
    assert said == {
        "limit": [0.0, {"__float__": "Infinity"}],
        "a": {"b": [{"__float__": "-Infinity"}, 1, "Infinity"]},
    }
    assert unspelt(said) == {"limit": [0.0, float("inf")], "a": {"b": [float("-inf"), 1, "Infinity"]}}
