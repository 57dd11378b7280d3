"""Rows in the words of other tools, said in ours: ShareGPT, Alpaca, question and answer, pairs with scores.

A dialect is recognised by its keys alone and only where the row isn't in one of our forms already; what was
recognised is counted by name and stands in the report. Keys are renamed first (``data.columns``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from llmfw.core.data.formats import FORMS, MARKS
from llmfw.core.data.readers.common import BadRows, ReadCounts
from llmfw.core.data.row_checks import RowError, check_string, wrong
from llmfw.core.errors import DataError, UsageError

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
_NEEDED: Final = frozenset({"prompt", *(mark for marks in MARKS.values() for mark in marks)})
_TELLING: Final = frozenset(
    "conversations conversation messages chosen instruction question query problem input response output "
    "solution".split()
)
"""A row with none of these keys is in no dialect."""
_ASKED: Final = ("prompt", "instruction", "question", "query", "problem")
_REPLIED: Final = ("response", "output")


def translated(
    rows: Iterable[tuple[str, object]],
    bad: BadRows,
    counts: ReadCounts,
    columns: Mapping[str, str],
    kind: str | None = None,
    alone: bool = True,
) -> Iterator[tuple[str, object]]:
    """The rows with renamed keys and in our words; what can't be translated goes to ``bad``.

    ``alone``: a column that no row has is an error (False in mixtures, where another source may have it).

    Raises:
        UsageError: a renaming without effect.
        DataError: a column that no row has.
    """
    check_columns(columns)
    unmet = set(columns.values()) - counts.renamed
    keys: dict[str, None] = {}
    for place, raw in rows:
        if not isinstance(raw, dict):
            yield place, raw
            continue
        if columns:
            keys.update(dict.fromkeys(raw))
        try:
            row = renamed(raw, columns, unmet, strict=alone)
            counts.renamed.update(set(columns.values()) - unmet if columns else ())
            said = translate(row, kind)
        except RowError as problem:
            bad.refuse(place, problem)
            continue
        if said is not None:
            counts.dialects[said[1]] += 1
            row = said[0]
        yield place, row
    if alone and keys:
        refuse_unmet(columns, counts, list(keys))


def refuse_unmet(columns: Mapping[str, str], counts: ReadCounts, keys: Sequence[str] = ()) -> None:
    """Refuse columns that no row had once all rows are read; ``keys`` are those that rows had.

    Raises:
        DataError: a renaming had no effect.
    """
    unmet = set(columns.values()) - counts.renamed
    if unmet:
        raise DataError(
            "COLUMNS",
            f"no row has the key {_shown(min(unmet), list(keys))}",
            key="data.columns",
            mend=f"the keys are: {', '.join(keys[:12])}" if keys else "check the name, or leave it out",
        )


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse renamings that can't change anything.

    Raises:
        UsageError: a key that is called as it is already.
    """
    for new, old in columns.items():
        if new == old:
            raise UsageError(
                "COLUMNS",
                f"{new} is called {old} already: this has no effect",
                key=f"data.columns.{new}",
                mend="give the key's name in the file, or leave it out",
            )


def renamed(
    row: Raw, columns: Mapping[str, str], unmet: set[str] | None = None, *, strict: bool = True
) -> Raw:
    """The row with ``columns`` (new name -> old name, dotted for nested keys); those found leave ``unmet``.

    Not ``strict``: a row without a column stays as it is.

    Raises:
        RowError: it lacks a column that its form needs.
    """
    if not columns:
        return row
    taken = {old for old in columns.values() if old in row}
    made = {key: value for key, value in row.items() if key not in taken and key not in columns}
    for new, old in columns.items():
        found, value = _look(row, old)
        if found:
            made[new] = value
            if unmet is not None:
                unmet.discard(old)
        elif new in row:
            made[new] = row[new]
        elif strict and new in _NEEDED:
            raise RowError(
                f"the row has no key {_shown(old, list(row))}",
                key=f"data.columns.{new}",
                mend=f"the row's keys are: {', '.join(list(row)[:12]) or 'none'}",
            )
    return made


def _look(row: Raw, name: str) -> tuple[bool, Any]:
    if name in row:
        return True, row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value


def _shown(name: str, keys: list[str]) -> str:
    near = difflib.get_close_matches(name, keys, 1)
    return name + (f" (did you mean {near[0]}?)" if near else "")


def translate(row: Raw, kind: str | None = None) -> Said:
    """The row in our words and how it was read; None where it's in none of the known dialects.

    Raises:
        RowError: a dialect's row that can't be used.
    """
    if _TELLING.isdisjoint(row) and not isinstance(row.get("completion"), dict):
        return None
    listed = _with_roles_as_lists(row)
    wanted = next((form for form in FORMS if form == kind), None)
    if wanted is None or wanted == "preference" or not MARKS[wanted] & _given(listed):
        for dialect in _DIALECTS:
            said = dialect(listed)
            if said is not None:
                return said
    return None if listed is row else (listed, "answers that are one message as lists of one message")


def _given(row: Raw) -> set[str]:
    return {key for key, value in row.items() if value is not None}


def _with_roles_as_lists(row: Raw) -> Raw:
    """Answers that are one message object become lists of one message."""
    single = [key for key in ("chosen", "rejected", "completion") if isinstance(row.get(key), dict)]
    return {**row, **{key: [row[key]] for key in single}} if single else row


def _sharegpt(row: Raw) -> Said:
    given = _given(row)
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


def _alpaca(row: Raw) -> Said:
    given = _given(row)
    if "instruction" not in given or given & {"messages", "completion", "answer"}:
        return None
    pair = {"chosen", "rejected"} <= given
    reply = next((name for name in _REPLIED if name in given), None)
    if reply is None and not pair:
        return _scored_answers(row)
    extra = next(
        (name for name in ("input", "context") if isinstance(row.get(name), str) and row[name].strip()), None
    )
    used = {"instruction", "input", "context", "system", "history", "text", "prompt", reply}
    made = {key: value for key, value in row.items() if key not in used}
    check_string(row["instruction"], "instruction")
    asked = row["instruction"] + (f"\n\n{row[extra]}" if extra else "")
    made["prompt"] = _asked(asked, row.get("system"), row.get("history"))
    if pair:
        return made, "Alpaca pairs (instruction, input, chosen, rejected) as prompt, chosen and rejected"
    assert reply is not None
    check_string(row[reply], reply, "the answer is empty")
    made["completion"] = row[reply]
    return (
        made,
        f"Alpaca (instruction, input, {reply}) as prompt and completion; input follows after a blank line",
    )


def _asked(asked: str, system: object, history: object) -> Any:
    """A string, or the messages of a conversation that went on before it."""
    before: list[Raw] = []
    if isinstance(system, str) and system.strip():
        before.append({"role": "system", "content": system})
    for index, turn in enumerate(history if isinstance(history, list) else []):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise wrong(f"history[{index}]", "[question, answer]", turn)
        before += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return [*before, {"role": "user", "content": asked}] if before else asked


def _scored_answers(row: Raw) -> Said:
    """Several answers to one instruction, each with a score: the best against the worst."""
    answers = row.get("completions")
    scored = (
        isinstance(answers, list)
        and bool(answers)
        and all(isinstance(one, dict) and "response" in one and _score(one) is not None for one in answers)
    )
    if not scored:
        return None
    assert isinstance(answers, list)
    ranked = sorted(answers, key=lambda one: _score(one) or 0.0)
    if _score(ranked[0]) == _score(ranked[-1]):
        raise RowError("all completions have one score", key="completions", mend="remove the row")
    made = {key: value for key, value in row.items() if key not in ("instruction", "completions")}
    best = next(one for one in answers if _score(one) == _score(ranked[-1]))
    worst = next(one for one in answers if _score(one) == _score(ranked[0]))
    made |= {"prompt": row["instruction"], "chosen": best["response"], "rejected": worst["response"]}
    return (
        made,
        "UltraFeedback (instruction, completions with scores) as pairs: the best against the worst answer",
    )


def _score(answer: Raw) -> float | None:
    for name in ("overall_score", "fine-grained_score", "score"):
        value = answer.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _asked_and_replied(row: Raw) -> Said:
    """question/answer, prompt/response, input/output and their like."""
    given = _given(row)
    if given & {"messages", "completion", "instruction"}:
        return None
    asked: str | None = next((name for name in _ASKED if name in given), None)
    if {"chosen", "rejected"} <= given:
        return _pair(row, asked)
    if asked is None and {"input", "output"} <= given:
        asked = "input"
    if asked is None:
        return None
    if "answer" in given:
        if asked == "prompt":
            return None
        return _problem(row, asked)
    reply = next((name for name in (*_REPLIED, "solution") if name in given), None)
    if reply is None or (reply == "solution" and not isinstance(row[reply], str)):
        return None
    made = {key: value for key, value in row.items() if key not in (asked, reply, "system", "text")}
    if asked == "prompt" and not isinstance(row["prompt"], str):
        made["prompt"] = row["prompt"]
    else:
        check_string(row[asked], asked)
        made["prompt"] = _asked(row[asked], row.get("system"), None)
    check_string(row[reply], reply, "the answer is empty")
    made["completion"] = row[reply]
    return made, f"{asked} and {reply} as prompt and completion"


def _problem(row: Raw, asked: str) -> Said:
    check_string(row[asked], asked)
    made = {key: value for key, value in row.items() if key not in (asked, "text")}
    made["prompt"] = row[asked]
    return made, f"{asked} and answer as a problem (prompt and answer)"


def _pair(row: Raw, asked: str | None) -> Said:
    """Pairs whose question has another name, or that bring the chosen conversation a second time."""
    chosen = row["chosen"]
    made = {key: value for key, value in row.items() if key not in (asked, "system", "messages")}
    if asked is not None and asked != "prompt":
        check_string(row[asked], asked)
        made["prompt"] = _asked(row[asked], row.get("system"), None)
        if isinstance(chosen, list) and len(chosen) > 1:
            del made["prompt"]  # the lists hold the whole conversation
        return made, f"pairs ({asked}, chosen, rejected) as prompt, chosen and rejected"
    system = row.get("system")
    if isinstance(system, str) and system.strip() and isinstance(row.get("prompt"), str):
        made["prompt"] = _asked(row["prompt"], system, None)
        return made, "pairs (system, prompt, chosen, rejected) as prompt, chosen and rejected"
    return None


def _repeated(row: Raw) -> Said:
    """Pairs whose ``messages`` say the chosen conversation again, as UltraFeedback's binarised rows do."""
    if {"chosen", "rejected", "messages"} <= _given(row) and row["messages"] == row["chosen"]:
        made = {key: value for key, value in row.items() if key != "messages"}
        return made, "pairs with the chosen conversation again as messages: the messages are left out"
    return None


def _openai_pair(row: Raw) -> Said:
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


_DIALECTS: Final[tuple[Callable[[Raw], Said], ...]] = (
    _openai_pair,
    _repeated,
    _sharegpt,
    _alpaca,
    _asked_and_replied,
)
