"""What is said of a wrong step: templates whose reason a checker finds, or a teacher's words. Plain Python.

A reflection begins with a mark (``s3c_math.mark``), by which it's recognised in answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llmfw.core.data import chain_of, first_wrong_step, stable_hash

from .quantities import last_number
from .segments import normal
from .solution import DELIMITER

_STEP: Final = re.compile(r"(-?\d+)([-+*])(-?\d+)=(-?\d+)")
_REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "calculation": (
        "{said} isn't {result}",
        "{said} gives something else",
        "{result} is no result of {said}",
    ),
    "carry": ("it goes on from {value}", "{value} comes first", "the number is {value}"),
    "operation": ("the task says {step}", "it is {step} here", "{step} comes now"),
    "form": ("that is no step", "this isn't how it goes on", "here something is missing"),
    "": ("this step isn't right", "there is a mistake here", "that isn't right"),
}
"""Kind of an error -> how it's put; the words are ours."""


def begins(text: str, mark: str) -> bool:
    """Whether a text begins with the mark, as a word of its own; newlines before it don't count."""
    text = text.lstrip()
    return text.startswith(mark) and not text[len(mark) : len(mark) + 1].isalnum()


def is_chain(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a chain of operations, so that the truth of its steps is known."""
    meta = row.get("meta")
    return isinstance(meta, Mapping) and "operations" in meta and "start" in meta


def truly_wrong(row: Mapping[str, Any], lines: Sequence[str], step: str) -> bool:
    """Whether ``step`` is a wrong step behind the gold ``lines`` of a chain."""
    return first_wrong_step(row, [*lines, step]) == len(lines)


def reason(row: Mapping[str, Any], at: int, wrong: str) -> tuple[str, dict[str, str]]:
    """(kind of the error, what its words speak of) of the wrong step ``at``: ``calculation``, ``carry``,
    ``operation``, ``form``; an empty kind where nothing is known of the row's steps.
    """
    if not is_chain(row):
        return "", {}
    chain = chain_of(row)
    found = _STEP.fullmatch(normal(wrong))
    if found is None or at >= len(chain.operations):
        return "form", {}
    left, sign, right, result = found.groups()
    value = str([chain.start, *chain.values][at])
    wanted, operand = chain.operations[at]
    told = {"said": f"{left}{sign}{right}", "result": result, "value": value, "step": f"{wanted}{operand}"}
    if left != value:
        return "carry", told
    return ("operation" if (sign, right) != (wanted, str(operand)) else "calculation"), told


def by_template(row: Mapping[str, Any], at: int, wrong: str, mark: str, seed: object) -> str:
    """A reflection without delimiter, ``MARK, REASON.``; which words is drawn by hash."""
    kind, told = reason(row, at, wrong)
    among = _REASONS[kind]
    words = among[stable_hash("reflection", seed, row["id"], at, wrong) % len(among)]
    return f"{mark}, {words.format(**told)}."


def to_teacher(question: str, lines: Sequence[str], wrong: str, right: str) -> str:
    """What a teacher is asked about a wrong step."""
    before = DELIMITER.join(lines) or "(nothing yet)"
    return (
        f"Question:\n{question}\n\nThe solution so far, all of it right:\n{before}\n\n"
        f"The next step that was written:\n{wrong}\n\nThe right step:\n{right}\n\n"
        "Write two lines. The first begins with 'Reflection:' and says in one sentence why the step that was "
        "written is wrong. The second begins with 'Step:' and is the right step, complete."
    )


def from_teacher(said: str, mark: str) -> tuple[str, str] | None:
    """(reflection, improvement) of a teacher's answer, each a line; None where it didn't keep to the form."""
    found: dict[str, str] = {}
    for line in said.splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon and rest.strip():
            found.setdefault(name.strip().lower(), rest.strip())
    if "reflection" not in found or "step" not in found:
        return None
    text = found["reflection"]
    begun = text if begins(text, mark) else f"{mark}, {text[:1].lower()}{text[1:]}"
    return begun, found["step"]


def consistent(row: Mapping[str, Any], lines: Sequence[str], improvement: str, right: str) -> bool:
    """Whether an improvement does what the gold step does: the same step but for white space; of a chain a
    right step; elsewhere a step that ends with the same number.
    """
    if normal(improvement) == normal(right):
        return True
    if is_chain(row):
        return not truly_wrong(row, lines, improvement)
    said, wanted = last_number(improvement), last_number(right)
    return said is not None and wanted is not None and said.value == wanted.value
