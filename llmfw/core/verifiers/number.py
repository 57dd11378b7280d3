"""Verifier ``number``: the final answer's words, or its number, exactly; needs nothing installed."""

from __future__ import annotations

from llmfw.core.records import Row
from llmfw.core.verifiers.by_answer import ByAnswer, reference
from llmfw.core.verifiers.value import another, same_value


def build(service: object = None) -> ByAnswer:
    """Equal as fractions (``1/2``, ``0.50``, ``1,000``, ``$5``, ``5 apples``), or in one case and spacing."""
    return ByAnswer(same=_same, other=_other)


def _same(row: Row, answer: str) -> bool:
    return same_value(reference(row), answer)


def _other(row: Row) -> str:
    return another(reference(row))
