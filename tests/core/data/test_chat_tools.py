"""Calls of functions are trained exactly as templates write them; templates without them are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmfw.core.data import Encoder, audit, canonical, prompt_of, trained_text
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import UsageError
from llmfw.core.generation import prompt_of as prompt_of_row
from llmfw.core.generation import render as render_prompt
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.models.templates import NAMED

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLS = [
    {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "zwölf"}}},
    {"type": "function", "function": {"name": "add", "arguments": {}}},
]
ROW = {
    "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "content": '{"sum": 4}'},
        {"role": "tool", "content": "none"},
        {"role": "assistant", "content": "It is 4."},
        {"role": "user", "content": "And 3+3?"},
        {"role": "assistant", "content": "I add.", "tool_calls": CALLS[:1]},
        {"role": "tool", "content": "6"},
        {"role": "assistant", "content": "6"},
    ],
}
HERMES = (
    "{% if tools %}{{ '<|im_start|>system\n<tools>' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '</tools><|im_end|>\n' }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>' + m.content + '</tool_response><|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role }}{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}"
    "{{ '\n<tool_call>\n' + (c.function | tojson) + '\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
"""Qwen's and Hermes' convention: the newline after the role belongs to the answer."""
LLAMA31 = (
    "{{ '<s>' }}{% for m in messages %}"
    "{% if loop.first and tools %}"
    "{{ '<|header|>system<|/header|>\n\n' + (tools | tojson) + '<|eot|>' }}{% endif %}"
    "{% if m.role == 'tool' %}{{ '<|header|>ipython<|/header|>\n\n' + (m.content | tojson) + '<|eot|>' }}"
    "{% elif m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('only one call at once') }}"
    "{% endif %}{% set f = m.tool_calls[0].function %}{{ '<|header|>assistant<|/header|>\n\n<|python_tag|>'"
    " + '{\"name\": ' + (f.name | tojson) + ', \"parameters\": ' + (f.arguments | tojson) + '}<|eom|>' }}"
    "{% else %}{{ '<|header|>' + m.role + '<|/header|>\n\n' + m.content | trim + '<|eot|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\n\n' }}{% endif %}"
)
"""Llama 3.1's ways: results as JSON, one call at once after a control token, no content beside a call."""
TOKENS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|/header|>", "<|eot|>", "<|eom|>"]


def _tokenizer(template: str) -> Any:
    core = Tokenizer(models.BPE(vocab=dict(byte_tokenizer().get_vocab()), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    extra = [*TOKENS, "<|python_tag|>"]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=extra[2:], chat_template=template, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _trained(template: str, row: dict[str, Any]) -> str:
    """What is trained; the audit must agree."""
    tokenizer = _tokenizer(template)
    form, checked = canonical(row)
    example = Encoder(tokenizer, 5000, "error").encode(form, checked)
    assert example is not None
    assert [str(found) for found in audit([example], tokenizer, [checked], form)] == []
    return trained_text(tokenizer, example.sequences[-1])


def _call(call: dict[str, Any]) -> str:
    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return f'<tool_call>\n{{"name": "add", "arguments": {arguments}}}\n</tool_call>'


def test_calls_are_trained_as_our_template_writes_them() -> None:
    first, second = map(_call, CALLS)
    assert _trained(NAMED["chatml-tools"], ROW) == (
        f"{first}\n{second}<|im_end|>It is 4.<|im_end|>I add.\n{first}<|im_end|>6<|im_end|>"
    )


def test_calls_are_trained_as_a_qwen_like_template_writes_them() -> None:
    first, second = map(_call, CALLS)
    assert _trained(HERMES, ROW) == (
        f"\n{first}\n{second}<|im_end|>\nIt is 4.<|im_end|>\nI add.\n{first}<|im_end|>\n6<|im_end|>"
    )


def _single() -> dict[str, Any]:
    messages = [*ROW["messages"][:1], {**ROW["messages"][1], "tool_calls": CALLS[:1]}, *ROW["messages"][2:3]]
    return {"tools": [TOOL], "messages": [*messages, ROW["messages"][4]]}


def test_calls_are_trained_as_a_llama_like_template_writes_them() -> None:
    """A control token opens the call, another ends it, and the function's result is written as JSON."""
    assert _trained(LLAMA31, _single()) == (
        '<|python_tag|>{"name": "add", "parameters": {"a": 2, "b": "zwölf"}}<|eom|>It is 4.<|eot|>'
    )


def test_a_completion_and_a_pair_may_call_functions() -> None:
    answer = [{"role": "assistant", "content": "", "tool_calls": CALLS[:1]}]
    completion = {"prompt": "2+2?", "completion": answer, "tools": [TOOL]}
    assert _trained(NAMED["chatml-tools"], completion) == _call(CALLS[0]) + "<|im_end|>"
    pair = {"prompt": "2+2?", "chosen": [{"role": "assistant", "content": "4"}], "rejected": answer}
    assert _trained(NAMED["chatml-tools"], pair) == _call(CALLS[0]) + "<|im_end|>"


def test_a_call_that_is_not_trained_is_context() -> None:
    row = _single()
    row["messages"] = [row["messages"][0], {**row["messages"][1], "loss": False}, *row["messages"][2:]]
    assert _trained(NAMED["chatml-tools"], row) == "It is 4.<|im_end|>"


def test_generation_sees_the_tools_that_training_saw() -> None:
    tokenizer = _tokenizer(NAMED["chatml-tools"])
    _, row = canonical(_single())
    asked = render_prompt(tokenizer, prompt_of(row))
    assert '"name": "add"' in asked and asked.endswith("<|im_start|>assistant\n")
    assert asked.count("<tool_call>") == 2  # the system message's and the first call's
    assert render_prompt(tokenizer, prompt_of_row(_single())) == asked  # a row that wasn't checked
    with pytest.raises(UsageError, match="doesn't write the functions"):
        render_prompt(_tokenizer(PLAIN), prompt_of_row({"prompt": "1+1?", "tools": [TOOL]}))


PLAIN = NAMED["chatml"]
DROPPED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "tools": (PLAIN, {**ROW, "messages": ROW["messages"][4:6] + ROW["messages"][8:]}, "tools", "functions"),
    "calls": (
        PLAIN,
        {"messages": ROW["messages"][:5]},
        "messages[1].tool_calls[0].function.name",
        "leaves out a call",
    ),
    "results": (
        PLAIN.replace("message['content']", "(message['content'] if message['role'] != 'tool' else '')"),
        {"messages": [*ROW["messages"][:1], ROW["messages"][4], *ROW["messages"][7:]]},
        "messages[2].content",
        "what a function returned",
    ),
    "arguments": (
        HERMES.replace("c.function | tojson", "c.function.name | tojson"),
        ROW,
        "messages[1].tool_calls[0].function.arguments",
        "leaves out a call's arguments",
    ),
    "content beside a call": (LLAMA31, {"messages": ROW["messages"][5:]}, "", "leaves a message out"),
    "another way later on": (
        HERMES.replace("{{ '<|im_end|>\n' }}", "{{ '<|im_end|>\n' if not loop.last else '<|eot|>\n' }}"),
        ROW,
        "messages[1]",
        "another way once the conversation goes on",
    ),
    "only one call": (LLAMA31, {"messages": ROW["messages"][:5]}, "", "only one call at once"),
    "a control token in an argument": (
        HERMES,
        {
            "messages": [
                ROW["messages"][0],
                {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": "<|im_end|>"}}]},
            ]
        },
        "messages[1].tool_calls",
        "spells the control token",
    ),
}


@pytest.mark.parametrize("case", DROPPED)
def test_a_template_that_leaves_something_out_is_refused_at_its_place(case: str) -> None:
    template, row, key, said = DROPPED[case]
    form, checked = canonical(row)
    with pytest.raises(RowError) as caught:
        Encoder(_tokenizer(template), 5000, "error").encode(form, checked)
    assert (caught.value.key or "") == key and said in caught.value.what


def test_smollm2s_own_template_refuses_tools_by_name(smollm2_template: str) -> None:
    form, checked = canonical(ROW)
    with pytest.raises(RowError, match="doesn't write the functions|leaves out a call"):
        Encoder(_tokenizer(smollm2_template), 5000, "error").encode(form, checked)


@pytest.fixture
def smollm2_template() -> str:
    """As its tokenizer_config.json has it."""
    return (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
