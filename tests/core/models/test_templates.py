"""Each named template: its text, letter by letter, and exactly what of it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmfw.core.data import TextTokenizer
from llmfw.core.data.chat import apply, render
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import UsageError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.templates import NAMED, control_tokens, find_template

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "2+2"},
    {"role": "assistant", "content": "4"},
]
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n2+2<|im_end|>\n"
    "<|im_start|>assistant\n4<|im_end|>\n"
)
WANTED: dict[str, tuple[str, list[str]]] = {
    "alpaca": (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYes?</s>"
        "\n\n### Instruction:\n2+2\n\n### Response:\n4</s>",
        ["Yes?</s>", "4</s>"],
    ),
    "chatml": (CHATML, ["Yes?<|im_end|>", "4<|im_end|>"]),
    "chatml-tools": (CHATML, ["Yes?<|im_end|>", "4<|im_end|>"]),
    "gemma": (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
        "<start_of_turn>user\n2+2<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>\n",
        ["Yes?<end_of_turn>", "4<end_of_turn>"],
    ),
    "llama2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] 2+2 [/INST] 4 </s>",
        [" Yes? </s>", " 4 </s>"],
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n2+2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|>",
        ["Yes?<|eot_id|>", "4<|eot_id|>"],
    ),
    "mistral": (
        "<s>[INST] Be brief.\n\nHi[/INST] Yes?</s>[INST] 2+2[/INST] 4</s>",
        [" Yes?</s>", " 4</s>"],
    ),
    "phi3": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n"
        "<|user|>\n2+2<|end|>\n<|assistant|>\n4<|end|>\n",
        ["Yes?<|end|>", "4<|end|>"],
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Yes?<|im_end|><|im_start|>user<|im_sep|>2+2<|im_end|>"
        "<|im_start|>assistant<|im_sep|>4<|im_end|>",
        ["Yes?<|im_end|>", "4<|im_end|>"],
    ),
    "qwen2": (CHATML, ["Yes?<|im_end|>", "4<|im_end|>"]),
    "tulu": (
        "<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nYes?</s>\n<|user|>\n2+2\n<|assistant|>\n4</s>\n",
        ["Yes?</s>", "4</s>"],
    ),
    "vicuna": (
        "Be brief. USER: Hi ASSISTANT: Yes?</s>USER: 2+2 ASSISTANT: 4</s>",
        [" Yes?</s>", " 4</s>"],
    ),
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nYes?</s>\n"
        "<|user|>\n2+2</s>\n<|assistant|>\n4</s>\n",
        ["Yes?</s>", "4</s>"],
    ),
}
WITHOUT_SYSTEM = {
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\nHi\n\n### Response:\n",
    "qwen2": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\n",
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: Hi ASSISTANT:",
    "mistral": "<s>[INST] Hi[/INST]",
    "gemma": "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
}


def _tokenizer(name: str) -> Any:
    """Bytes as tokens, and every control token that the template writes."""
    core = Tokenizer(models.BPE(vocab=dict(byte_tokenizer().get_vocab()), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    extra = ["<s>", "</s>", *control_tokens(NAMED[name], name)]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=extra[2:], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = find_template(name, tokenizer)
    return TextTokenizer(tokenizer)


def test_every_named_template_is_tested_here() -> None:
    assert set(NAMED) == set(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_a_conversation_is_written_letter_by_letter_and_exactly_the_answers_are_trained(name: str) -> None:
    tokenizer = _tokenizer(name)
    text, trained = WANTED[name]
    rendered = render(tokenizer, TALK)
    assert rendered.text == text
    assert [text[response.start : response.stop] for response in rendered.responses] == trained
    assert rendered.open_ends == 0 and rendered.answers == ("Yes?", "4")
    ids, flags = tokenizer.masked(text, rendered.responses)
    assert tokenizer.decode([token for token, flag in zip(ids, flags, strict=True) if flag]) == "".join(
        trained
    )


@pytest.mark.parametrize("name", WANTED)
def test_what_generation_starts_from_is_a_beginning_of_the_conversation(name: str) -> None:
    tokenizer = _tokenizer(name)
    for count in (2, 4):
        opened = apply(tokenizer, TALK[:count], opened=True)
        whole = apply(tokenizer, TALK[: count + 1])
        assert whole.startswith(opened) and len(opened) > len(apply(tokenizer, TALK[: count - 1]))


@pytest.mark.parametrize("name", WITHOUT_SYSTEM)
def test_without_a_system_message_some_write_their_own(name: str) -> None:
    assert apply(_tokenizer(name), TALK[1:2], opened=True) == WITHOUT_SYSTEM[name]


@pytest.mark.parametrize("name", ["gemma", "llama2", "mistral"])
def test_templates_of_alternating_roles_refuse_others(name: str) -> None:
    with pytest.raises(RowError, match="roles must alternate user and assistant"):
        apply(_tokenizer(name), [TALK[1], TALK[1]])


@pytest.mark.parametrize("name", sorted(set(WANTED) - {"chatml", "chatml-tools", "llama3", "phi4", "qwen2"}))
def test_templates_without_a_place_for_function_results_refuse_them(name: str) -> None:
    with pytest.raises(RowError, match=r"there is no role tool|roles must alternate"):
        apply(_tokenizer(name), [*TALK[1:3], {"role": "tool", "content": "4"}])


def test_a_template_whose_tokens_the_tokenizer_lacks_is_refused_with_those_that_fit() -> None:
    with pytest.raises(UsageError) as caught:
        find_template("llama3", byte_tokenizer())
    said = str(caught.value)
    assert "TEMPLATE-TOKENS" in said and "<|eot_id|>: the tokenizer has no such token" in said
    assert "zephyr" in said and "gemma" not in said


def test_of_a_files_template_missing_tokens_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}{{ m['content'] + '<|turn_end|>' }}{% endfor %}")
    assert find_template(str(path), byte_tokenizer()).startswith("{% for m")
    assert "mine.jinja writes <|turn_end|>: the tokenizer has no such token" in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"no chat template named 'lama3'; name a file, or one of: alpaca, chatml"
    ):
        find_template("lama3", byte_tokenizer())
