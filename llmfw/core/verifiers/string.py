"""Verifier ``string``: equality of strings, as papers compare; for figures that are to equal theirs."""

from __future__ import annotations

import re

from llmfw.core.records import Row
from llmfw.core.verifiers.by_answer import ByAnswer, reference
from llmfw.core.verifiers.extract import plain

_OPTION = re.compile(r"\(([a-f])\)", re.IGNORECASE)


def build(service: object = None) -> ByAnswer:
    """Equal but for case, once both are taken out of what is put around them; an option ``(a)`` to ``(f)`` is
    right where the answer contains it.
    """
    return ByAnswer(same=_same, other=_other)


def _same(row: Row, answer: str) -> bool:
    gold = reference(row)
    if _OPTION.fullmatch(gold):
        return gold.lower() in answer.lower()
    return plain(gold).lower() == answer.lower()


def _other(row: Row) -> str:
    gold = reference(row)
    option = _OPTION.fullmatch(gold)
    if option:
        return f"({chr(ord('a') + (ord(option[1].lower()) - ord('a') + 1) % 6)})"
    return f"{plain(gold)} + 1"
