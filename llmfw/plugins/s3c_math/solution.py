"""A problem's solution as lines, each with the newlines that stand around it. Plain Python.

Blank lines belong to the line before them, those at the very beginning to the first one, so that the lines
together are the solution to the character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.data import PLACE, answer_of

from .errors import SolutionError

DELIMITER = "\n"


def lines_of(row: Mapping[str, Any]) -> list[str]:
    """The lines of a problem's own solution, newlines and indentation included; the last is that of the
    answer.

    Raises:
        SolutionError: NO-STEPS: no prompt, no answer, no solution, or a step that isn't one line.
    """
    if not _has_steps(row):
        raise SolutionError(
            "NO-STEPS",
            f"row {row.get('id')!r} isn't a problem with a solution of one line a step",
            mend="give rows with prompt, answer and a solution (data=chain-arithmetic), a step a line",
            file=row.get(PLACE),
            key=next((key for key in ("prompt", "answer") if key not in row), "solution"),
        )
    last = f"Answer: {row['answer']}"
    found: list[str] = []
    for piece in re.findall(r"[^\n]*\n", answer_of(row).removesuffix(last)):
        if found and not (piece.strip() and found[-1].strip()):
            found[-1] += piece
        else:
            found.append(piece)
    return [*found, last]


def steps_of(row: Mapping[str, Any]) -> list[str]:
    """A problem's steps, bare, without the line of its answer.

    Raises:
        SolutionError: NO-STEPS.
    """
    return [line.strip() for line in lines_of(row)[:-1]]


def beginning(row: Mapping[str, Any], at: int) -> str:
    """The solution up to where the text of step ``at`` begins."""
    lines = lines_of(row)
    return "".join(lines[:at]) + _around(lines[at])[0]


def behind(line: str) -> str:
    """What stands behind the text of a line: its newline and blank lines."""
    return _around(line)[1]


def in_place_of(line: str, text: str) -> str:
    """``text`` with what stands around the text of a line."""
    before, after = _around(line)
    return before + text + after


def _around(line: str) -> tuple[str, str]:
    text = line.strip()
    before, _, after = line.partition(text)
    return before, after


def _has_steps(row: Mapping[str, Any]) -> bool:
    told = row.get("solution")
    if not told or "answer" not in row or "prompt" not in row:
        return False
    if isinstance(told, str):
        return bool(told.strip())
    return isinstance(told, Sequence) and all(
        isinstance(step, str) and step.strip() and DELIMITER not in step for step in told
    )
