from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llmfw.core.models.byte_level import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
def test_a_text_becomes_its_bytes_and_comes_back(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert ids == list(text.encode())
    assert TOKENIZER.decode(ids) == text


def test_offsets_point_at_characters_also_of_several_bytes() -> None:
    """'é' has two bytes, '日' three: each byte of a character has the character's span."""
    offsets = TOKENIZER("aé日", return_offsets_mapping=True)["offset_mapping"]
    assert offsets == [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3)]


def test_special_tokens_are_one_id_each_and_text_that_merely_looks_alike_is_not() -> None:
    assert TOKENIZER.convert_tokens_to_ids(["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]) == [
        256,
        257,
        258,
        259,
        260,
    ]
    assert TOKENIZER("<|im_end|>")["input_ids"] == [260]
    assert TOKENIZER("<|im_end>")["input_ids"] == list(b"<|im_end>")
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (256, 257, 258)
    assert len(TOKENIZER) == 261


def test_the_chat_template_writes_turns_and_opens_the_answer() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    assert TOKENIZER.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
    )
    asked = TOKENIZER.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_it_is_saved_and_loaded_like_any_tokenizer(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Zwölf <|im_start|>x"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.pad_token_id == 256


def test_no_token_is_added_to_a_text() -> None:
    assert TOKENIZER("a", add_special_tokens=True)["input_ids"] == [97]
