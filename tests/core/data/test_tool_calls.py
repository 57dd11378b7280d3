"""Calls and tools in one form, in rows and in files."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw.core.data.formats import canonical, prompt_of
from llmfw.core.data.row_checks import RowError
from llmfw.core.data.tool_calls import for_interface, without_tools

ADD = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add"}}


def _row(call: Any, **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": None, "tool_calls": call, "refusal": None},
        {"role": "tool", "content": "2", "tool_call_id": "x"},
        {"role": "assistant", "content": "2"},
    ]
    return {"messages": messages, **more}


@pytest.mark.parametrize(
    "call",
    [
        [ADD],
        [{"name": "add", "arguments": {"a": 1}}],
        [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        '[{"name": "add", "parameters": {"a": 1}}]',
    ],
    ids=["ours", "bare", "arguments as a string", "all as a string"],
)
def test_calls_are_brought_to_one_form(call: Any) -> None:
    _, row = canonical(_row(call))
    assert row["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [ADD]}


def test_a_calls_id_stays() -> None:
    assert canonical(_row([{**ADD, "id": "call_1"}]))[1]["messages"][1]["tool_calls"][0]["id"] == "call_1"


@pytest.mark.parametrize("tools", [[TOOL], [{"name": "add"}], '[{"name": "add"}]'])
def test_tools_stand_in_the_first_message_and_beside_the_messages_in_files(tools: Any) -> None:
    _, row = canonical(_row([ADD], tools=tools))
    assert row["messages"][0]["tools"] == [TOOL] and "tools" not in row
    assert prompt_of(row)[0]["tools"] == [TOOL]
    plain = without_tools(row)
    assert plain["tools"] == [TOOL] and "tools" not in plain["messages"][0]
    assert canonical(plain)[1] == row


def test_a_string_prompt_with_tools_becomes_a_message() -> None:
    _, row = canonical(
        {"prompt": "1+1?", "completion": [{"role": "assistant", "tool_calls": [ADD]}], "tools": [TOOL]}
    )
    assert row["prompt"] == [{"role": "user", "content": "1+1?", "tools": [TOOL]}]


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "1+"}, {"type": "text", "text": "1?"}]
    _, row = canonical(
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "2"}]}
    )
    assert row["messages"][0]["content"] == "1+1?"


def test_for_an_interface_arguments_are_strings_and_results_belong_to_their_calls() -> None:
    _, row = canonical(_row([ADD, {**ADD, "id": "mine"}], tools=[TOOL]))
    messages, tools = for_interface(row["messages"])
    assert tools == [TOOL] and "tools" not in messages[0]
    calls = messages[1]["tool_calls"]
    assert [call["id"] for call in calls] == ["call_1_0", "mine"]
    assert all(call["function"] == {"name": "add", "arguments": '{"a": 1}'} for call in calls)
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert messages[2]["tool_call_id"] == "x"  # its own


def test_openais_weight_says_whether_a_message_is_trained() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]
    _, row = canonical({"messages": [*turns, turns[0], {"role": "assistant", "content": "c", "weight": 1}]})
    assert [message.get("loss") for message in row["messages"]] == [None, False, None, True]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": (_row([{"function": {"arguments": {}}}]), "messages[1].tool_calls[0].function.name"),
    "arguments": (
        _row([{"name": "add", "arguments": "{"}]),
        "messages[1].tool_calls[0].function.arguments",
    ),
    "argument list": (
        _row([{"name": "add", "arguments": [1]}]),
        "messages[1].tool_calls[0].function.arguments",
    ),
    "no list": (_row({"name": "add"}), "messages[1].tool_calls"),
    "no call, no content": (_row(None), "messages[1].content"),
    "weight": (
        {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]},
        "messages[0].weight",
    ),
    "user calls": (
        {"messages": [{"role": "user", "content": "a", "tool_calls": [ADD]}]},
        "messages[0].tool_calls",
    ),
    "spans": (
        {"messages": [{"role": "assistant", "content": "a", "spans": [[0, 1]], "tool_calls": [ADD]}]},
        "messages[0].spans",
    ),
    "tools": (_row([ADD], tools=[{"parameters": {}}]), "tools[0]"),
    "tools of text": ({"text": "a", "tools": [TOOL]}, "tools"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_calls_that_cannot_be_used_are_named_by_key(case: str) -> None:
    row, key = BAD[case]
    with pytest.raises(RowError) as caught:
        canonical(row)
    assert caught.value.key == key
