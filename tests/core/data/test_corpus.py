"""The text that a tokenizer is trained on, and what can't be trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import open_tokenizer
from llmfw.core.data.corpus import corpus, texts_of
from llmfw.core.errors import DataError, UsageError
from llmfw.core.models import resolve_model
from llmfw.core.schema import DataConfig, ModelConfig, Root, TokenizerConfig


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(name: str, *rows: dict[str, Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [{"prompt": f"say {i}", "completion": f"it is {i}, and {i * i}"} for i in range(count)]


def root(name: str = "rows.jsonl", *, train: str | None = "bpe", size: int = 300, **data: Any) -> Root:
    data = {"validation": None, **data}
    return Root(data=DataConfig(name=name, **data), tokenizer=TokenizerConfig(train=train, vocab_size=size))


SCRATCH = ModelConfig(name="mine", config={"model_type": "llama", "max_position_embeddings": 99})


def test_the_text_of_every_form_is_found() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    said = {
        "id": "r1",
        "text": "a",
        "prompt": [{"role": "user", "content": "b"}],
        "chosen": "c",
        "rejected": "",
        "messages": [
            {"role": "user", "content": "d"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ],
        "solution": ["e", "f"],
        "answer": "g",
        "tools": [{"name": "add"}],
        "meta": {"note": "not this"},
        "reward": 1.0,
    }
    found = list(texts_of(said))
    assert found == ["a", "b", "c", "d", json.dumps(call), "e", "f", "g", '{"name": "add"}']


def test_the_corpus_is_each_text_of_the_training_rows_once_in_order() -> None:
    pair = {"prompt": "one", "chosen": "two"}
    write("rows.jsonl", {**pair, "rejected": "three"}, {**pair, "rejected": "four"})
    assert corpus(root()) == ["one", "two", "three", "four"]
    assert corpus(root(limit=1)) == ["one", "two", "three"]


def test_held_out_rows_do_not_count() -> None:
    write("rows.jsonl", *({"text": f"text {i}"} for i in range(20)))
    found = corpus(root(validation="0.25"))
    assert len(found) == 15
    write("held.jsonl", {"text": "held out"})
    assert "held out" not in corpus(root(validation="held.jsonl"))


def test_all_sources_of_a_mixture_count() -> None:
    write("a.jsonl", {"text": "one"})
    write("b.jsonl", {"prompt": "two", "completion": "three"})
    config = root()
    config.data.mix = {"a.jsonl": 1.0, "b.jsonl": 2.0}
    assert corpus(config) == ["one", "two", "three"]


def test_a_trained_tokenizer_fits_the_model_and_is_told_with_its_hash() -> None:
    write("rows.jsonl", *rows())
    opened = open_tokenizer(root(), resolve_model(SCRATCH))
    size = len(opened.tokenizer)
    assert opened.source.model.config["vocab_size"] == size
    assert opened.source.model.config["eos_token_id"] == [2, 5]
    assert opened.tokenizer.model_max_length == 99
    assert opened.facts["train"] == "bpe" and opened.facts["tokens"] == size
    assert len(opened.facts["tokenizer.json"]) == 64
    assert opened.notes[0].startswith("bpe tokenizer trained on ") and f": {size} tokens" in opened.notes[0]
    write("rows.jsonl", *rows(41))
    assert open_tokenizer(root(), resolve_model(SCRATCH)).facts != opened.facts


def test_text_that_yields_fewer_tokens_is_told_and_unigrams_chance_too() -> None:
    write("rows.jsonl", {"text": "abab"})
    opened = open_tokenizer(root(size=5000), resolve_model(SCRATCH))
    assert "of the 5000 asked for: the text yields no more" in opened.notes[0]
    opened = open_tokenizer(root(train="unigram"), resolve_model(SCRATCH))
    assert "may give other pieces" in opened.notes[0]


def test_without_training_the_named_or_own_tokenizer_is_opened() -> None:
    opened = open_tokenizer(root(train=None, size=8192), resolve_model(SCRATCH))
    assert len(opened.tokenizer) == 261 and opened.source.model.config["vocab_size"] == 261
    assert opened.facts == {}


@pytest.mark.parametrize(
    ("config", "model", "owner", "what"),
    [
        (root(), "owner/name", None, "owner/name brings embeddings of its own"),
        (root(), SCRATCH, "frames", "plugin 'frames' makes the rows"),
        (root(streaming=True), SCRATCH, None, "data.streaming none of it"),
        (root(train=None, size=77), SCRATCH, None, "without tokenizer.train it has no effect"),
        (root("champ-preferences"), SCRATCH, None, "chooses its rows by a tokenizer"),
        (
            Root(data=DataConfig(name="rows.jsonl"), tokenizer=TokenizerConfig(train="bpe", name="byte")),
            SCRATCH,
            None,
            "tokenizer.name=byte names one already",
        ),
    ],
)
def test_what_can_not_be_is_refused(config: Root, model: Any, owner: str | None, what: str) -> None:
    if config.data.name == "champ-preferences":
        from llmfw.core.data.presets import preset_settings

        config.data.package = preset_settings("champ-preferences")["package"]
    with pytest.raises(UsageError, match="TOKENIZER-TRAIN") as caught:
        open_tokenizer(config, resolve_model(model), owner)
    assert what in str(caught.value)


def test_rows_that_can_not_be_read_are_named() -> None:
    Path("rows.jsonl").write_text('{"text": "a"}\n{"text": 3}\n')
    with pytest.raises(DataError, match="rows.jsonl:2"):
        corpus(root())


def test_rows_are_no_longer_than_a_decoder_only_model_has_positions() -> None:
    """512 usual tokens are 2,048 single bytes; the model has 99 positions, and a T5 has no limit."""
    from llmfw.core.data.encode import row_limit
    from llmfw.core.models.encoder_decoder import Sides

    opened = open_tokenizer(root(train=None, size=8192), resolve_model(SCRATCH))
    limit, said = row_limit(opened.tokenizer, 512, None)
    assert limit == 99 and said is not None
    assert said == "longest allowed is 99 tokens, not 2048: the model has no more positions"
    assert row_limit(opened.tokenizer, 20, None) == (80, None)
    assert row_limit(opened.tokenizer, 512, Sides(start=0)) == (2048, None)
