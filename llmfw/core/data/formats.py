"""The forms of a row, told apart by their keys, and what each demands.

preference
    ``prompt``, ``chosen``, ``rejected``: strings or message lists. Without ``prompt`` it's the leading
    messages that chosen and rejected share.
completion
    ``prompt`` and ``completion``: strings or message lists. ``spans`` train these characters of a string; one
    that ends a character behind the last trains the end of the turn, too. So everywhere.
messages
    ``messages``; each may carry ``loss`` (default: true for the assistant) and ``spans`` ([start, end)
    characters of its content: only these are trained).
text
    ``text``, optionally ``spans``.
problems
    ``prompt``, ``answer``, optionally ``solution`` (a string or steps), ``level``, ``tests``, ``meta``;
    trained as prompt, then solution and answer.

Any row may have an ``id`` (else it's a hash of the content) and further keys, which transforms and the split
may use. A ``reward`` (a finite number) makes completions, messages and texts ``scored`` samples, which may
have ``old_logps``: for each trained token its log-prob under the policy that wrote it. ``extra`` maps names
to numbers for the batch. A message is an object with ``role`` (system, user, assistant or tool) and
``content``, a string; the assistant's may have ``tool_calls``. Rows with a prompt or messages may have
``tools``, the functions that can be called.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from llmfw.core.data.row_checks import RowError as RowError
from llmfw.core.data.row_checks import (
    check_characters,
    check_messages,
    check_prompt,
    check_response,
    check_spans,
    check_string,
    number,
    wrong,
)
from llmfw.core.data.row_checks import is_trained as is_trained
from llmfw.core.data.row_checks import reaches_end as reaches_end
from llmfw.core.data.tool_calls import normal_messages, with_tools
from llmfw.core.records import Row

Form = Literal["preference", "completion", "messages", "text", "problems"]
Prompt = str | list[dict[str, Any]]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
PLACE: Final = "_at"
"""Reserved key: where a row stands, ``FILE:LINE``; it's neither trained on nor hashed."""

MARKS: Final[dict[Form, frozenset[str]]] = {
    "preference": frozenset({"chosen", "rejected"}),
    "completion": frozenset({"completion"}),
    "messages": frozenset({"messages"}),
    "text": frozenset({"text"}),
    "problems": frozenset({"answer"}),
}
"""Keys that tell a form."""
_SAID: Final = frozenset(
    {
        "prompt",
        "chosen",
        "rejected",
        "completion",
        "messages",
        "text",
        "answer",
        "solution",
        "tools",
        "spans",
        "reward",
        "old_logps",
    }
)
_KNOWN: Final = ("prompt", "chosen", "rejected", "completion", "messages", "text", "answer", "solution")


def form_of(row: Mapping[str, Any], kind: str | None = None) -> Form:
    """The row's form, read off its keys unless ``kind`` names it."""
    if kind is not None:
        return next(form for form in FORMS if form == kind)
    given = {key for key, value in row.items() if value is not None}  # a table's row has every column
    if not any(MARKS[form] & given for form in FORMS):
        given = set(row)
    found = [form for form in FORMS if MARKS[form] & given]
    if len(found) > 1 and "problems" in found:
        found.remove("problems")  # `answer` is a common extra column; the other forms' marks are not
    if len(found) == 1:
        return found[0]
    if found:
        keys = sorted(key for form in found for key in MARKS[form] & given)
        raise RowError(
            f"the keys {', '.join(keys)} belong to different forms",
            mend=f"keep one form, or set data.kind to one of {', '.join(found)}",
        )
    near = [
        f"{key} (did you mean {match[0]}?)"
        for key in row
        if (match := difflib.get_close_matches(key, _KNOWN, 1))
    ]
    keys = near or [key for key in list(row)[:8] if key != PLACE]
    raise RowError(
        f"unknown form: the keys are {', '.join(map(str, keys)) or 'none'}",
        mend="use prompt+completion, prompt+chosen+rejected, messages, text, or prompt+answer, or say with "
        "data.columns which key is which",
    )


def canonical(row: Mapping[str, Any], kind: str | None = None) -> tuple[Form, Row]:
    """The row's form and a checked copy that has an ``id`` and, unless it's ``messages`` or ``text``, a
    ``prompt``.

    Raises:
        RowError: the row can't be used.
    """
    form = form_of(row, kind)
    row = {key: value for key, value in row.items() if value is not None or key in _SAID & MARKS[form]}
    for key in ("prompt", "chosen", "rejected", "completion", "messages"):
        if key in row:
            row[key] = normal_messages(row[key], key)
    if "tools" in row and form != "preference":
        row = _with_tools(row, form)
    row = {
        "preference": _preference,
        "completion": _completion,
        "messages": _messages,
        "text": _text,
        "problems": _problems,
    }[form](row)
    if "reward" in row:
        if form in ("preference", "problems"):
            raise RowError(f"a {form} row has no reward", key="reward", mend="remove the key")
        row["reward"] = number(row["reward"], "reward")
    if "old_logps" in row:
        row["old_logps"] = _old_logps(row)
    extra = row.get("extra", {})
    if not isinstance(extra, dict):
        raise wrong("extra", "an object of numbers", extra)
    for name, value in extra.items():
        number(value, f"extra.{name}")
    row["id"] = _id(row)
    return form, row


def _old_logps(row: Row) -> list[float]:
    if "reward" not in row:
        raise RowError("only a row with a reward has them", key="old_logps", mend="remove the key")
    given = row["old_logps"]
    if not isinstance(given, list):
        raise wrong("old_logps", "a list of numbers", given)
    return [number(value, f"old_logps[{index}]") for index, value in enumerate(given)]


def content_hash(row: Mapping[str, Any]) -> str:
    """16 hex digits over everything that the row says, except its place and its id."""
    said = {key: value for key, value in row.items() if key not in (PLACE, "id")}
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def said_hash(row: Mapping[str, Any]) -> str:
    """16 hex digits over what a canonical row trains and asks; ids, places and further keys don't count."""
    return content_hash({key: value for key, value in row.items() if key in _SAID})


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """What a model is asked in this row: a string or a message list; of ``messages``, all before the last
    trained message.

    An empty string for a text row.
    """
    if "prompt" in row:
        prompt: Prompt = row["prompt"]
        return prompt
    if "messages" in row:
        messages: list[dict[str, Any]] = row["messages"]
        last = max(index for index, message in enumerate(messages) if is_trained(message))
        return [
            {name: value for name, value in message.items() if name not in ("loss", "spans")}
            for message in messages[:last]
        ]
    return ""


def answer_of(row: Mapping[str, Any]) -> str:
    """The response that a problem is trained on: its solution's steps, then ``Answer: ...``; without a
    solution the answer.
    """
    solution = row.get("solution")
    if not solution:
        return str(row["answer"])
    steps = [solution] if isinstance(solution, str) else list(solution)
    return "\n".join([*steps, f"Answer: {row['answer']}"])


def _with_tools(row: Row, form: Form) -> Row:
    if form == "text":
        raise RowError("a text row has no tools", key="tools", mend="remove the key")
    return with_tools(row, "messages" if form == "messages" else "prompt")


def _preference(row: Row) -> Row:
    for key in ("chosen", "rejected"):
        if key not in row:
            raise RowError("the key is missing", key=key, mend="give both chosen and rejected")
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError(
            "chosen and rejected are of different types",
            key="rejected",
            mend="make both strings or both message lists",
        )
    if isinstance(chosen, list):
        check_messages(chosen, "chosen")
        check_messages(rejected, "rejected")
        shared = _shared(chosen, rejected)
        prompt = row.get("prompt")
        whole = prompt is None or (shared and (prompt == shared or prompt == shared[-1]["content"]))
        if whole:
            if not shared:
                raise RowError(
                    "there is no prompt: chosen and rejected share no leading message",
                    key="prompt",
                    mend="add a prompt",
                )
            row["prompt"] = shared
            chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    if "tools" in row:
        row = _with_tools(row, "preference")
    check_prompt(row)
    row["chosen"], row["rejected"] = chosen, rejected
    for key in ("chosen", "rejected"):
        check_response(row[key], key)
    if _said(chosen) == _said(rejected):
        raise RowError(
            "chosen and rejected are equal", key="rejected", mend="remove the row, or make them differ"
        )
    return row


def _shared(chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The leading messages that both have, up to the last that is not the assistant's."""
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    while count and chosen[count - 1]["role"] == "assistant":
        count -= 1
    return chosen[:count]


def _said(response: Prompt) -> object:
    if isinstance(response, str):
        return response.strip()
    return [(message["role"], message["content"].strip(), message.get("tool_calls")) for message in response]


def _completion(row: Row) -> Row:
    if "completion" not in row:
        raise RowError(
            "the key is missing",
            key="completion",
            mend="add a completion, or set data.kind to the rows' form",
        )
    check_prompt(row)
    if isinstance(row["completion"], list):
        check_messages(row["completion"], "completion")
    check_response(row["completion"], "completion")
    if "spans" in row:
        if not isinstance(row["completion"], str):
            raise RowError(
                "spans of a message list stand inside its messages",
                key="spans",
                mend="move them into the message",
            )
        check_spans(row["spans"], row["completion"], "spans")
    return row


def _messages(row: Row) -> Row:
    if "messages" not in row:
        raise RowError(
            "the key is missing", key="messages", mend="add messages, or set data.kind to the rows' form"
        )
    messages = row["messages"]
    check_messages(messages, "messages")
    trained = [index for index, message in enumerate(messages) if is_trained(message)]
    if not trained:
        raise RowError(
            "no message is trained",
            key="messages",
            mend="add an answer of the assistant, or set loss to true in a message",
        )
    for index in trained:
        if not messages[index]["content"].strip() and not messages[index].get("tool_calls"):
            raise RowError(
                "the answer is empty",
                key=f"messages[{index}].content",
                mend="fill it, or set its loss to false",
            )
    return row


def _text(row: Row) -> Row:
    if "text" not in row:
        raise RowError("the key is missing", key="text", mend="add text, or set data.kind to the rows' form")
    check_string(row["text"], "text")
    if "spans" in row:
        check_spans(row["spans"], row["text"], "spans")
    return row


def _problems(row: Row) -> Row:
    check_prompt(row)
    answer = row.get("answer")
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        row["answer"] = answer = str(answer)
    check_string(answer, "answer")
    solution = row.get("solution")
    if isinstance(solution, list):
        for index, step in enumerate(solution):
            check_string(step, f"solution[{index}]")
    elif solution is not None:
        check_string(solution, "solution")
    level = row.get("level")
    if level is not None and (isinstance(level, bool) or not isinstance(level, (int, float, str))):
        raise wrong("level", "a number or a string", level)
    if not isinstance(row.get("tests", []), list):
        raise wrong("tests", "a list", row["tests"])
    if not isinstance(row.get("meta", {}), dict):
        raise wrong("meta", "an object", row["meta"])
    return row


def _id(row: Row) -> str:
    given = row.get("id")
    if given is None:
        return content_hash(row)
    if isinstance(given, bool) or not isinstance(given, (str, int)) or given == "":
        raise wrong("id", "a string or an integer", given)
    check_characters(str(given), "id")
    if not str(given).isprintable():
        raise RowError("the id holds control characters", key="id", mend="give a printable id")
    return str(given)
