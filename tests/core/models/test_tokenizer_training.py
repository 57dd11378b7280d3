"""Tokenizers trained on texts: lossless, cached by content, split as transformers will split them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmfw.core import schema
from llmfw.core.errors import DataError, UsageError
from llmfw.core.models import load_tokenizer
from llmfw.core.models.tokenizer_training import file_hash, trained_tokenizer
from llmfw.core.schema import ModelConfig, TokenizerConfig

TEXTS = [f"say {i} and again {i * i}: the number is what it is\n" for i in range(80)]
ODD = [
    "",
    "  lead, trail  \n\n\t",
    "naïve Größe 日本語 🙂 ▁x ##y <0x41>",
    "é é \r\n\x00\x7f",
    "x" * 500 + "日" * 300,
    "don't 12345 <b>",
]
KINDS = ("bpe", "unigram", "wordpiece")


def trained(kind: str, size: int = 300, model_type: str = "llama", template: str | None = None) -> Path:
    config = TokenizerConfig(train=kind, vocab_size=size, template=template)
    return trained_tokenizer(config, TEXTS, model_type)


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_comes_back_as_it_was_and_nothing_is_unknown(kind: str) -> None:
    prose = Path(schema.__file__).read_text(encoding="utf-8").split("\n")
    folder = trained_tokenizer(TokenizerConfig(train=kind, vocab_size=600), prose, "llama")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for text in ODD + prose:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids
    assert len(tokenizer) == 600
    pieces = sum(len(tokenizer(text)["input_ids"]) for text in prose)
    assert pieces < sum(len(text.encode()) for text in prose) / 2  # it has learnt something


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_fixed_ids_and_end_turns(kind: str) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained(kind))
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "say 3"}], tokenize=False)
    assert turn == "<|im_start|>user\nsay 3<|im_end|>\n"
    assert tokenizer(turn)["input_ids"][0] == 4 and 5 in tokenizer(turn)["input_ids"]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_the_same_text_and_settings_give_the_same_file(kind: str, tmp_path: Path, monkeypatch) -> None:
    first = file_hash(trained(kind))
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "another"))
    assert file_hash(trained(kind)) == first


def test_the_cache_knows_texts_and_settings(own_cache: Path) -> None:
    first = trained("bpe")
    stamp = (first / "tokenizer.json").stat().st_mtime_ns
    assert trained("bpe") == first and (first / "tokenizer.json").stat().st_mtime_ns == stamp
    config = TokenizerConfig(train="bpe", vocab_size=300)
    others = {
        trained("bpe", 301),
        trained("unigram"),
        trained("bpe", model_type="qwen2"),
        trained_tokenizer(config, TEXTS[:-1], "llama"),
        trained_tokenizer(config, ["".join(TEXTS[:2]), *TEXTS[2:]], "llama"),
    }
    assert len(others) == 5 and first not in others


def test_the_control_tokens_of_another_template_are_tokens(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{% for m in messages %}<|turn|>{{ m['role'] }}<|say|>{{ m['content'] }}<|over|>{% endfor %}"
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained("bpe", template=str(file)))
    assert tokenizer("<|turn|>a<|over|>").tokens() == ["<|turn|>", "a", "<|over|>"]
    assert "<|im_start|>" not in tokenizer.get_vocab()


def test_words_are_split_as_transformers_will_split_them_whatever_the_folder_says(tmp_path: Path) -> None:
    """AutoTokenizer puts a Qwen2Tokenizer, which takes digits one by one, beside a config of Qwen2."""
    folder = tmp_path / "qwen2"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained("bpe", model_type="qwen2"))
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    text = "say 1234 and 5"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_folder_that_names_no_class_is_read_as_its_file_says(tmp_path: Path) -> None:
    """Trained for a Llama, digits merge; AutoTokenizer would take them apart under a config of Qwen2."""
    folder = tmp_path / "qwen2"
    made = trained("bpe", 400)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(made)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    text = "say 25 and again 625"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] != tokenizer(text)["input_ids"]
    ours = load_tokenizer(ModelConfig(name=str(folder)))
    assert ours(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_too_few_tokens_and_no_text_are_refused() -> None:
    with pytest.raises(UsageError, match="TOKENIZER-TRAIN.*256 bytes and 6 special.*at least 262"):
        trained("bpe", 261)
    with pytest.raises(DataError, match="TOKENIZER-TRAIN.*no text"):
        trained_tokenizer(TokenizerConfig(train="bpe"), ["", " \n"], "llama")
    with pytest.raises(UsageError, match="TEMPLATE"):
        trained("bpe", template="nowhere")
