"""Rows in the words of other tools, said in ours: ShareGPT, Alpaca, question and answer, pairs with scores.

A dialect is recognised by its keys alone and only where the row isn't in one of our forms already; what was
recognised is counted by name and stands in the report. Keys are renamed first (``data.columns``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from llmfw.core.data.columns import check_columns, refuse_unmet, renamed
from llmfw.core.data.formats import FORMS, MARKS
from llmfw.core.data.readers.common import BadRows, ReadCounts
from llmfw.core.data.row_checks import RowError, check_string, wrong
from llmfw.core.data.sharegpt import Raw, Said, given_keys, openai_pair, sharegpt

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


def translate(row: Raw, kind: str | None = None) -> Said:
    """The row in our words and how it was read; None where it's in none of the known dialects.

    Raises:
        RowError: a dialect's row that can't be used.
    """
    if _TELLING.isdisjoint(row) and not isinstance(row.get("completion"), dict):
        return None
    listed = _with_roles_as_lists(row)
    wanted = next((form for form in FORMS if form == kind), None)
    if wanted is None or wanted == "preference" or not MARKS[wanted] & given_keys(listed):
        for dialect in _DIALECTS:
            said = dialect(listed)
            if said is not None:
                return said
    return None if listed is row else (listed, "answers that are one message as lists of one message")


def _with_roles_as_lists(row: Raw) -> Raw:
    """Answers that are one message object become lists of one message."""
    single = [key for key in ("chosen", "rejected", "completion") if isinstance(row.get(key), dict)]
    return {**row, **{key: [row[key]] for key in single}} if single else row


def _alpaca(row: Raw) -> Said:
    given = given_keys(row)
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
    given = given_keys(row)
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
    if {"chosen", "rejected", "messages"} <= given_keys(row) and row["messages"] == row["chosen"]:
        made = {key: value for key, value in row.items() if key != "messages"}
        return made, "pairs with the chosen conversation again as messages: the messages are left out"
    return None


_DIALECTS: Final[tuple[Callable[[Raw], Said], ...]] = (
    openai_pair,
    _repeated,
    sharegpt,
    _alpaca,
    _asked_and_replied,
)
