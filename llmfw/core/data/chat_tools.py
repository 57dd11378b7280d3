"""Does a chat template write the functions, calls and results of a conversation?

Many templates leave them out without a word: the model would learn to answer from nothing.
"""

from __future__ import annotations

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
    if any("tool_calls" in message or message["role"] == "tool" for message in messages):
        _calls(tokenizer, messages, key)


def _tools(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], text: str) -> None:
    tools = next(message["tools"] for message in messages if "tools" in message)
    bare = [{name: value for name, value in message.items() if name != "tools"} for message in messages]
    names = [str(tool.get("function", tool)["name"]) for tool in tools]
    if any(name not in text for name in names) or apply(tokenizer, bare) == text:
        raise RowError("the chat template doesn't write the functions", key="tools", mend=_MEND)


def _calls(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], key: str) -> None:
    """Names, arguments and results must appear: each is replaced by a word that occurs nowhere else."""
    changed: list[Mapping[str, Any]] = []
    words: dict[str, tuple[str, str]] = {}
    for index, message in enumerate(messages):
        if message["role"] == "tool" and str(message["content"]).strip():
            word = f"zqresult{index}x"
            words[word] = (f"{key}[{index}].content", "what a function returned")
            message = {**message, "content": word}
        calls = []
        for order, call in enumerate(message.get("tool_calls", ())):
            at = f"{key}[{index}].tool_calls[{order}].function"
            name, value = f"zqname{index}x{order}x", f"zqvalue{index}x{order}x"
            words[name] = (f"{at}.name", "a call")
            arguments = {}
            if call["function"]["arguments"]:
                words[value] = (f"{at}.arguments", "a call's arguments")
                arguments = {value: value}
            calls.append({**call, "function": {"name": name, "arguments": arguments}})
        changed.append({**message, "tool_calls": calls} if calls else message)
    text = apply(tokenizer, changed)
    for word, (place, what) in words.items():
        if word not in text:
            raise RowError(f"the chat template leaves out {what}", key=place, mend=_MEND)
