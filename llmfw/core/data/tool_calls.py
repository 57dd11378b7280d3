"""Messages that call functions, and the functions that a row offers: checked, and in one form.

A call is ``{"type": "function", "function": {"name": ..., "arguments": {...}}}`` with arguments as an object;
JSON in a string (as OpenAI's interface has it) is read, and a bare ``{"name", "arguments"}`` is wrapped. In
canonical rows the first message carries the row's ``tools``: prompt and tools belong together wherever
prompts go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.data.row_checks import RowError, check_characters, wrong

Message = dict[str, Any]


def normal_messages(messages: Any, key: str) -> Any:
    """A message list with calls in one form, ``weight`` as ``loss``, text parts joined, and without null
    keys; other values as they are.

    Raises:
        RowError: calls or parts that can't be used.
    """
    if not isinstance(messages, list):
        return messages
    return [
        _normal(message, f"{key}[{index}]") if isinstance(message, dict) else message
        for index, message in enumerate(messages)
    ]


def with_tools(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The row with its ``tools`` in the first message of ``key`` (a string becomes a user's message).

    Raises:
        RowError: tools that can't be used.
    """
    made = {name: value for name, value in row.items() if name != "tools"}
    tools = normal_tools(row.get("tools"), "tools")
    asked = made.get(key)
    if not tools:
        return made
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    if isinstance(asked, list) and asked and isinstance(asked[0], dict):
        made[key] = [{**asked[0], "tools": tools}, *asked[1:]]
    return made


def without_tools(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as files hold it: ``tools`` beside the messages, not inside them."""
    made = dict(row)
    for key in ("prompt", "messages"):
        asked = made.get(key)
        if isinstance(asked, list) and asked and "tools" in asked[0]:
            made["tools"] = asked[0]["tools"]
            first = {name: value for name, value in asked[0].items() if name != "tools"}
            made[key] = [first, *asked[1:]]
    return made


def for_interface(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Message], list[Any]]:
    """(messages, tools) as OpenAI's interface takes them: arguments are JSON in a string, calls have ids."""
    tools: list[Any] = next((message["tools"] for message in messages if message.get("tools")), [])
    made: list[Message] = []
    ids: list[str] = []
    for message in messages:
        said = {name: part for name, part in message.items() if name not in ("loss", "spans", "tools")}
        if "tool_calls" in said:
            calls = [
                {"id": f"call_{len(made)}_{order}", **call, "function": {**call["function"]}}
                for order, call in enumerate(said["tool_calls"])
            ]
            for call in calls:
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
            ids = [str(call["id"]) for call in calls]
            said["tool_calls"] = calls
        elif said.get("role") == "tool" and ids:
            said.setdefault("tool_call_id", ids.pop(0))
        made.append(said)
    return made, tools


def normal_tools(tools: Any, key: str) -> list[dict[str, Any]]:
    """The functions that a row offers, each ``{"type": "function", "function": {"name": ...}}``."""
    if isinstance(tools, str):
        tools = _parsed(tools, key) if tools.strip() else None
    if not tools:
        return []
    if not isinstance(tools, list):
        raise wrong(key, "a list of functions", tools)
    made: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
            raise wrong(f"{key}[{index}]", "a function with a name", tool)
        made.append(tool if "function" in tool else {"type": "function", "function": tool})
    return made


def _normal(message: Message, at: str) -> Message:
    message = {name: value for name, value in message.items() if value is not None or name == "content"}
    weight = message.pop("weight", None)  # OpenAI's word for it
    if weight is not None:
        if weight not in (0, 1):
            raise wrong(f"{at}.weight", "0 or 1", weight)
        message.setdefault("loss", bool(weight))
    calls = message.pop("tool_calls", None)
    if isinstance(calls, str):
        calls = _parsed(calls, f"{at}.tool_calls") if calls.strip() else None
    if calls:
        if message.get("role") != "assistant":
            raise RowError(
                f"the {message.get('role')} calls a function",
                key=f"{at}.tool_calls",
                mend="let the assistant call it",
            )
        if "spans" in message:
            raise RowError(
                "spans can't be told in a message that calls functions",
                key=f"{at}.spans",
                mend="remove the spans, or set loss to false",
            )
        message["content"] = "" if message.get("content") is None else message["content"]
        message["tool_calls"] = _calls(calls, f"{at}.tool_calls")
    if "tools" in message:
        message["tools"] = normal_tools(message["tools"], f"{at}.tools")
    if isinstance(message.get("content"), list):
        message["content"] = _joined(message["content"], f"{at}.content")
    return message


def _calls(calls: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise wrong(key, "a list of calls", calls)
    made: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        at = f"{key}[{index}]"
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict):
            raise wrong(at, "a call with a function's name and arguments", call)
        name, arguments = inner.get("name"), inner.get("arguments", inner.get("parameters", {}))
        if not isinstance(name, str) or not name.strip():
            raise wrong(f"{at}.function.name", "a function's name", name)
        check_characters(name, f"{at}.function.name")
        if isinstance(arguments, str):
            arguments = _parsed(arguments, f"{at}.function.arguments") if arguments.strip() else {}
        if not isinstance(arguments, dict):
            raise wrong(f"{at}.function.arguments", "an object, or one as JSON in a string", arguments)
        check_characters(json.dumps(arguments, ensure_ascii=False), f"{at}.function.arguments")
        outer = {part: value for part, value in call.items() if part == "id" and value is not None}
        made.append({**outer, "type": "function", "function": {"name": name, "arguments": arguments}})
    return made


def _joined(parts: Sequence[Any], key: str) -> str:
    """Content given in parts, as OpenAI's interface has it: texts only."""
    if not parts or not all(isinstance(part, dict) and "type" in part for part in parts):
        raise wrong(key, "a string", list(parts))
    for index, part in enumerate(parts):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowError(
                f"a part of type {part.get('type')} can't be trained on",
                key=f"{key}[{index}]",
                mend="give texts only",
            )
    return "".join(part["text"] for part in parts)


def _parsed(text: str, key: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("the string is not JSON", key=key, mend="write JSON") from None
