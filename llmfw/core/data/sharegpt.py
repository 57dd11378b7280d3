"""ShareGPT's conversations and OpenAI's pairs as messages."""

from __future__ import annotations

import json
from typing import Any, Final

from llmfw.core.data.row_checks import RowError, wrong

Raw = dict[str, Any]
Said = tuple[Raw, str] | None
"""The row in our words and how it was read, or None: not this dialect."""

SPEAKERS: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "call",
}
"""ShareGPT's ``from`` -> our role; a ``call`` is an assistant's message that calls a function."""


def given_keys(row: Raw) -> set[str]:
    """The keys that have a value."""
    return {key for key, value in row.items() if value is not None}


def sharegpt(row: Raw) -> Said:
    """``conversations`` of turns with from and value; pairs of such turns."""
    given = given_keys(row)
    key = next(
        (name for name in ("conversations", "conversation", "messages") if _turns(row.get(name))), None
    )
    if key is None:
        answers = [name for name in ("chosen", "rejected") if _turns(row.get(name))]
        if len(answers) < 2 or "from" not in row["chosen"][0]:
            return None
        made = {name: value for name, value in row.items() if name != "system"}
        made |= {name: _messages(row[name], name, None) for name in answers}
        if _turns(row.get("prompt")):
            made["prompt"] = _messages(row["prompt"], "prompt", row.get("system"))
        return made, "ShareGPT pairs (chosen and rejected with from and value) as prompt, chosen and rejected"
    if key == "messages" and all("role" in turn for turn in row[key]):
        return None
    made = {name: value for name, value in row.items() if name not in (key, "system", "tools")}
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        made["tools"] = _json(tools, "tools")
    elif tools:
        made["tools"] = tools
    messages = _messages(row[key], key, row.get("system"))
    if {"chosen", "rejected"} <= given:
        for name in ("chosen", "rejected"):
            if _turns(row[name]):
                made[name] = _messages(row[name], name, None)
            elif isinstance(row[name], str):
                made[name] = [{"role": "assistant", "content": row[name]}]
        return {
            **made,
            "prompt": messages,
        }, f"ShareGPT pairs ({key}, chosen, rejected) as prompt, chosen and rejected"
    what = "from and value" if "from" in row[key][0] else "role and content"
    return {**made, "messages": messages}, f"ShareGPT ({key} with {what}) as messages"


def _turns(value: object) -> bool:
    """Whether a value is a list of turns, with from and value or with role and content."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) for turn in value)
        and ("from" in value[0] or "role" in value[0])
    )


def _messages(turns: list[Raw], key: str, system: object) -> list[Raw]:
    messages: list[Raw] = []
    if isinstance(system, str) and system.strip():
        messages.append({"role": "system", "content": system})
    for index, turn in enumerate(turns):
        at = f"{key}[{index}]"
        speaker = turn.get("from", turn.get("role"))
        role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise RowError(
                f"the speaker is {json.dumps(speaker, default=str)}",
                key=f"{at}.{'from' if 'from' in turn else 'role'}",
                mend=f"use one of {', '.join(SPEAKERS)}",
            )
        said = turn.get("value", turn.get("content"))
        message = {
            name: part for name, part in turn.items() if name not in ("from", "value", "weight", "train")
        }
        flag = turn.get("weight", turn.get("train"))
        if flag is not None:
            if flag not in (0, 1):
                raise wrong(f"{at}.weight", "0 or 1", flag)
            message["loss"] = bool(flag)
        if role == "call":
            calls = _json(said, f"{at}.value") if isinstance(said, str) else said
            message |= {
                "role": "assistant",
                "content": "",
                "tool_calls": calls if isinstance(calls, list) else [calls],
            }
        else:
            message |= {"role": role, "content": said}
        messages.append(message)
    return messages


def _json(text: str, key: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("it is not JSON", key=key, mend="write JSON, e.g. a list of functions") from None


def openai_pair(row: Raw) -> Said:
    """OpenAI's preference format: ``input`` with messages and tools, preferred and non-preferred outputs."""
    asked, better, worse = (row.get(key) for key in ("input", "preferred_output", "non_preferred_output"))
    if not (isinstance(asked, dict) and _turns(asked.get("messages")) and _turns(better) and _turns(worse)):
        return None
    used = ("input", "preferred_output", "non_preferred_output")
    made = {key: value for key, value in row.items() if key not in used}
    made |= {"prompt": asked["messages"], "chosen": better, "rejected": worse}
    if asked.get("tools"):
        made["tools"] = asked["tools"]
    return made, "OpenAI pairs (input, preferred_output, non_preferred_output) as prompt, chosen and rejected"
