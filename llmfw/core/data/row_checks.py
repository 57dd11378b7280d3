"""What the parts of a row demand: strings, messages, spans, numbers. Each names its key and the mend."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llmfw.core.records import Row

ROLES: Final = ("system", "user", "assistant", "tool")


class RowError(Exception):
    """What is wrong with a row, at which key; the reader adds file and line."""

    def __init__(self, what: str, *, mend: str, key: str | None = None) -> None:
        super().__init__(what)
        self.what, self.mend, self.key = what, mend, key


def is_trained(message: Mapping[str, Any]) -> bool:
    """Whether a message is trained: its ``loss`` flag, else whether the assistant says it."""
    return bool(message.get("loss", message["role"] == "assistant"))


def check_prompt(row: Row) -> None:
    if "prompt" not in row:
        raise RowError("the key is missing", key="prompt", mend="add a prompt")
    prompt = row["prompt"]
    if isinstance(prompt, str):
        check_string(prompt, "prompt")
        return
    check_messages(prompt, "prompt")
    if prompt[-1]["role"] in ("assistant", "system"):
        raise RowError(
            f"the prompt ends with the {prompt[-1]['role']}",
            key="prompt",
            mend="end it with a user's or tool's message",
        )


def check_response(response: object, key: str) -> None:
    if isinstance(response, str):
        check_string(response, key, "the answer is empty")
        return
    if not isinstance(response, list):
        raise wrong(key, "a string or a message list", response)
    if not any(is_trained(message) for message in response):
        raise RowError(
            "the answer is empty: no message of the assistant", key=key, mend="add the assistant's answer"
        )
    for index, message in enumerate(response):
        if is_trained(message) and not message["content"].strip() and not message.get("tool_calls"):
            raise RowError(
                "the answer is empty", key=f"{key}[{index}].content", mend="fill it, or remove the row"
            )


def check_messages(messages: object, key: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise wrong(key, "a non-empty list of messages", messages)
    for index, message in enumerate(messages):
        at = f"{key}[{index}]"
        if not isinstance(message, dict):
            raise wrong(at, "an object with role and content", message)
        role = message.get("role")
        if role not in ROLES:
            raise RowError(
                f"the role is {json.dumps(role, default=str)}",
                key=f"{at}.role",
                mend=f"use one of {', '.join(ROLES)}",
            )
        if role == "system" and index:
            raise RowError(
                "a system message stands after others",
                key=f"{at}.role",
                mend="put it first, or give it another role",
            )
        content = message.get("content")
        if not isinstance(content, str):
            raise wrong(f"{at}.content", "a string", content)
        check_characters(content, f"{at}.content")
        if not isinstance(message.get("loss", True), bool):
            raise wrong(f"{at}.loss", "true or false", message["loss"])
        if "spans" in message:
            check_spans(message["spans"], content, f"{at}.spans")


def check_spans(spans: object, text: str, key: str) -> None:
    if not isinstance(spans, list) or not spans:
        raise wrong(key, "a non-empty list of [start, end]", spans)
    last = 0
    for index, span in enumerate(spans):
        if not (
            isinstance(span, (list, tuple)) and len(span) == 2 and all(type(edge) is int for edge in span)
        ):
            raise wrong(f"{key}[{index}]", "[start, end] in characters", span)
        if not last <= span[0] < span[1] <= len(text) + 1 or span[0] == len(text):
            raise RowError(
                f"[{span[0]}, {span[1]}] doesn't lie in order within the {len(text)} characters",
                key=f"{key}[{index}]",
                mend="give ascending spans with 0 <= start < end <= length (+ 1 trains the end of the turn)",
            )
        last = span[1]


def reaches_end(spans: Sequence[Sequence[int]] | None, text: str) -> bool:
    """Whether the end of the turn (of a text: of the text) is trained with these spans of it."""
    return spans is None or spans[-1][1] > len(text)


def check_string(value: object, key: str, empty: str = "the string is empty") -> None:
    if not isinstance(value, str):
        raise wrong(key, "a string", value)
    if not value.strip():
        raise RowError(empty, key=key, mend="fill it, or remove the row")
    check_characters(value, key)


def check_characters(value: str, key: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            f"character {error.start} is half a surrogate pair (\\u{ord(value[error.start]):04x})",
            key=key,
            mend="write the whole character",
        ) from None


def number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(key, "a number", value)
    if not math.isfinite(value):
        raise RowError(f"{value} is not finite", key=key, mend="give a finite number")
    return float(value)


def wrong(key: str, wanted: str, value: object) -> RowError:
    shown = json.dumps(value, default=str) if value is not None else "missing or null"
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return RowError(f"expected {wanted}, got {shown}", key=key, mend=f"give {wanted}")
