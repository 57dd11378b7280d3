"""Verifier ``option``: the letter of a multiple-choice question, where it's stated as the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from llmfw.core.errors import DataError
from llmfw.core.records import Row
from llmfw.core.verifiers.by_answer import ByAnswer, gold_of
from llmfw.core.verifiers.extract import boxed, is_short, marked, plain, stated
from llmfw.core.verifiers.match import normalised

_LETTERS = "ABCDEFGHIJ"
_LEADS = (
    re.compile(r"(?:option|choice)?\s*[(\[]([A-Za-z])[)\]]", re.IGNORECASE),
    re.compile(r"(?:option|choice)\s+([A-Za-z])\b", re.IGNORECASE),
    re.compile(r"([A-Za-z])\s*[.):](?=\s|$)"),
    re.compile(r"([A-Z])(?=\s+(?:is|because|since|as)\b|\s*[,;—–]|\s+-\s)"),
)
"""How an answer begins that goes on behind its letter."""
_ALSO = re.compile(
    r"[)\].:]?\s*(?:or|and|/|,|&)\s*(?:option\s*|choice\s*)?(?:[(\[]\s*[A-Za-z]\s*[)\]]|[A-Z](?![A-Za-z']))"
)
"""A second letter behind the first: no choice was made."""
_CHOSEN = re.compile(
    r"(?:correct|right|best)\s+(?:option|choice)\s+is\s*:?\s*(?:option\s+)?[(\[]?([A-Za-z])[)\]]?(?![A-Za-z'])"
    r"|\boption\s+[(\[]?([A-Za-z])[)\]]?\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|[(\[]([A-Za-z])[)\]]\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|\b(?:choose|select|pick|go with)\s+(?:option\s+)?[(\[]?([A-Z])[)\]]?(?![A-Za-z'])",
    re.IGNORECASE,
)


def build(service: object = None) -> ByAnswer:
    """The row's answer is a letter, or the text of an option where ``meta.options`` lists or maps them; a
    response answers with either.
    """
    return ByAnswer(same=_same, other=_other, found=_found)


def _found(row: Row, response: str) -> str | None:
    """The letter that a response states last, upper case; None where it states none, or two at once."""
    text = response.rpartition("</think>")[2].strip()
    options = options_of(row)
    said = marked(text)
    if said is not None:
        inner = boxed(said) or stated(said)
        return (letter_in(inner, options) if inner else None) or letter_in(said, options)
    for part in (boxed(text), stated(text)):
        if part is not None and (letter := letter_in(part, options)):
            return letter
    chosen = [next(filter(None, found)) for found in _CHOSEN.findall(text)]
    if chosen:
        return letter_in(chosen[-1], options)
    lines = text.splitlines()
    last = lines[-1] if lines else ""
    return letter_in(last, options) if len(lines) == 1 or is_short(last) else None


def letter_in(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that a stated answer begins with or consists of, or that of the option whose text it is."""
    text = plain(text)
    for letter, words in options.items():
        if normalised(plain(words)) == normalised(text):
            return letter
    alone = re.fullmatch(r"(?:option|choice)?\s*[(\[]?\s*([A-Za-z])\s*[)\]]?[.:]?", text, re.IGNORECASE)
    found = alone or next(filter(None, (lead.match(text) for lead in _LEADS)), None)
    if found is None or (not alone and _ALSO.match(text[found.end(1) :])):
        return None
    letter = found[1].upper()
    return letter if letter in (options or _LETTERS) else None


def options_of(row: Row) -> dict[str, str]:
    """Letter -> text of the row's ``meta.options``; empty where it has none.

    Raises:
        DataError: OPTIONS, they're neither a list of texts nor an object from letters to texts.
    """
    given = (row.get("meta") or {}).get("options")
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(isinstance(key, str) and len(key) == 1 for key in given):
        return {key.upper(): str(words) for key, words in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) <= 26:
        return {chr(ord("A") + index): str(words) for index, words in enumerate(given)}
    raise DataError(
        "OPTIONS",
        f"row {row.get('id', '?')}: meta.options is neither a list of texts nor letters with their texts",
        mend='write "options": ["first", "second"], or {"A": "first", "B": "second"}',
        key="meta.options",
    )


def _gold(row: Row) -> str:
    """The letter of the row's answer.

    Raises:
        DataError: OPTIONS, it's neither a letter nor an option's text.
    """
    letter = letter_in(gold_of(row), options_of(row))
    if letter is None:
        raise DataError(
            "OPTIONS",
            f"row {row.get('id', '?')}: the answer {gold_of(row)!r} is no option's letter or text",
            mend="let answer be a letter, or put the options into meta.options",
            key="answer",
        )
    return letter


def _same(row: Row, answer: str) -> bool:
    return answer == _gold(row)


def _other(row: Row) -> str:
    letters = list(options_of(row) or _LETTERS)
    return f"({letters[(letters.index(_gold(row)) + 1) % len(letters)]})" if len(letters) > 1 else "none"
