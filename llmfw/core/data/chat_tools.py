"""Does a chat template write the functions, calls and results of a conversation?

Many templates leave them out without a word: the model would learn to answer from nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.data.rendering import apply
from llmfw.core.data.row_checks import RowError
from llmfw.core.data.text import TextTokenizer

_MEND = "choose a tokenizer.template that writes tools (e.g. chatml-tools), or leave this row out"


def refuse_unwritten(
    tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], text: str, key: str
) -> None:
    """Refuse a conversation whose rendering ``text`` lacks tools, calls or results.

    Raises:
        RowError: what is left out, at its message.
    """
    if any("tools" in message for message in messages):
        _tools(tokenizer, messages, text)
    if any("tool_calls" in message for message in messages):
        _calls(tokenizer, messages, key)
    for index, message in enumerate(messages):
        said = str(message["content"]).strip()
        if message["role"] == "tool" and said and not any(form in text for form in _written(said)):
            raise RowError(
                "the chat template leaves out or changes what a function returned",
                key=f"{key}[{index}].content",
                mend=_MEND,
            )


def _tools(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], text: str) -> None:
    tools = next(message["tools"] for message in messages if "tools" in message)
    bare = [{name: value for name, value in message.items() if name != "tools"} for message in messages]
    names = [str(tool.get("function", tool)["name"]) for tool in tools]
    if any(name not in text for name in names) or apply(tokenizer, bare) == text:
        raise RowError("the chat template doesn't write the functions", key="tools", mend=_MEND)


def _calls(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], key: str) -> None:
    """Every call's name and arguments must appear: each is replaced by a word that occurs nowhere else."""
    changed: list[Mapping[str, Any]] = []
    words: dict[str, str] = {}
    for index, message in enumerate(messages):
        calls = []
        for order, call in enumerate(message.get("tool_calls", ())):
            at = f"{key}[{index}].tool_calls[{order}]"
            name, value = f"zqname{index}x{order}", f"zqvalue{index}x{order}"
            words |= {name: f"{at}.function.name"}
            arguments = {}
            if call["function"]["arguments"]:
                words[value] = f"{at}.function.arguments"
                arguments = {value: value}
            calls.append({**call, "function": {"name": name, "arguments": arguments}})
        changed.append({**message, "tool_calls": calls} if calls else message)
    text = apply(tokenizer, changed)
    for word, place in words.items():
        if word not in text:
            raise RowError("the chat template leaves out a call", key=place, mend=_MEND)


def _written(said: str) -> tuple[str, ...]:
    """A result as templates write it: as it is, or as a JSON string."""
    return (said, json.dumps(said, ensure_ascii=False)[1:-1], json.dumps(said)[1:-1])
