"""Step-level critiques: what they say, how they are written and read (arXiv 2411.16579). Plain Python.

The paper's form, one block a step and a verdict at the end:

    Step sentence: 12*3=38
    Correctness of the step: Wrong
    Explanation: 12*3=36
    Correctness of the final answer: Wrong
    Explanation: ...

The compact form says the same in a line each, for models that read few characters:

    12*3=38 |no| 12*3=36
    answer |no|
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from .errors import CritiqueError

Form = Literal["paper", "compact"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)

_MARKS: Final = re.compile(
    r"\s*\b(Step sentence|Correctness of the step|Correctness of the final answer|Explanation)\s*:\s*",
    re.IGNORECASE,
)
_COMPACT: Final = re.compile(r"(.*?)\|(ok|no)\|(.*)")
_FINAL: Final = "answer"
_LABELS: Final = {"correct": True, "wrong": False}


@dataclass(frozen=True)
class Block:
    """What a critique says of one step: the step's own words, whether it's right, and why."""

    sentence: str
    correct: bool
    explanation: str = ""


@dataclass(frozen=True)
class Critique:
    """Blocks in the steps' order, at least one, and the verdict on the final answer. Texts hold single
    blanks for any white space.
    """

    blocks: tuple[Block, ...]
    correct: bool
    explanation: str = ""

    @property
    def first_error(self) -> int | None:
        """Index (from 0) of the first block that says Wrong, None without one: what locates the error. Later
        blocks don't count, whatever they say.
        """
        return next((index for index, block in enumerate(self.blocks) if not block.correct), None)

    @property
    def labels(self) -> list[bool]:
        """The steps' labels."""
        return [block.correct for block in self.blocks]


def render(critique: Critique, form: Form = "paper") -> str:
    """The critique's text; ``parse`` gives the critique back.

    Raises:
        CritiqueError: GRAMMAR: it has no block, a block without a sentence, or a text that holds the form's
            own marks, so that nobody could read it back.
    """
    _check(critique, form)
    if form == "compact":
        lines = [_compact(block.sentence, block.correct, block.explanation) for block in critique.blocks]
        return "\n".join([*lines, _compact(_FINAL, critique.correct, critique.explanation)])
    parts = [
        f"Step sentence: {block.sentence}\nCorrectness of the step: {_label(block.correct)}\n"
        f"Explanation: {block.explanation}".rstrip()
        for block in critique.blocks
    ]
    parts.append(
        f"Correctness of the final answer: {_label(critique.correct)}\n"
        f"Explanation: {critique.explanation}".rstrip()
    )
    return "\n".join(parts)


def parse(text: str, form: Form = "paper") -> Critique | None:
    """The critique that a text holds; None where it holds none: a missing or unknown label, a part out of its
    place, no step or no verdict at the end. White space doesn't count.
    """
    return _parse_compact(text) if form == "compact" else _parse_paper(text)


def normal(text: str) -> str:
    """A text as a critique holds it: white space is one blank."""
    return " ".join(text.split())


def _label(correct: bool) -> str:
    return "Correct" if correct else "Wrong"


def _compact(sentence: str, correct: bool, explanation: str) -> str:
    return f"{sentence} |{'ok' if correct else 'no'}| {explanation}".rstrip()


def _check(critique: Critique, form: Form) -> None:
    texts = [critique.explanation]
    for block in critique.blocks:
        texts += [block.sentence, block.explanation]
    marks = re.compile(r"\|(?:ok|no)\|") if form == "compact" else _MARKS
    held = next((text for text in texts if marks.search(text)), None)
    wrong = None
    if not critique.blocks:
        wrong = "it says nothing of any step"
    elif any(not block.sentence for block in critique.blocks):
        wrong = "one of its blocks names no step"
    elif held is not None:
        wrong = f"{held[:60]!r} holds the grammar's own marks"
    elif any(text != normal(text) for text in texts):
        wrong = "a text of it holds more than single blanks"
    elif form == "compact" and any(block.sentence == _FINAL for block in critique.blocks):
        wrong = f"a step that says {_FINAL!r} would be read as the verdict"
    if wrong:
        raise CritiqueError(
            "GRAMMAR",
            f"this critique can't be written in form {form}: {wrong}",
            mend="leave the record out, or take the other form",
            key="critique_loop.form",
        )


def _parse_compact(text: str) -> Critique | None:
    found: list[tuple[str, bool, str]] = []
    for line in filter(str.strip, text.splitlines()):
        match = _COMPACT.fullmatch(line.strip())
        if match is None or not match[1].strip() or _COMPACT.fullmatch(match[3]):
            return None
        found.append((normal(match[1]), match[2] == "ok", normal(match[3])))
    if len(found) < 2 or found[-1][0] != _FINAL or any(name == _FINAL for name, _, _ in found[:-1]):
        return None
    blocks = tuple(Block(*said) for said in found[:-1])
    return Critique(blocks, found[-1][1], found[-1][2])


def _parse_paper(text: str) -> Critique | None:
    pieces = _MARKS.split(text)
    if pieces[0].strip():
        return None
    parts = [(mark.lower(), normal(said)) for mark, said in zip(pieces[1::2], pieces[2::2], strict=True)]
    blocks: list[Block] = []
    at = 0
    while at < len(parts) and parts[at][0] == "step sentence":
        block, at = _block(parts, at)
        if block is None:
            return None
        blocks.append(block)
    if not blocks or at >= len(parts) or parts[at][0] != "correctness of the final answer":
        return None
    verdict = _read_label(parts[at][1])
    rest = parts[at + 1 :]
    if verdict is None or len(rest) > 1 or (rest and rest[0][0] != "explanation"):
        return None
    return Critique(tuple(blocks), verdict, rest[0][1] if rest else "")


def _block(parts: Sequence[tuple[str, str]], at: int) -> tuple[Block | None, int]:
    """The block that begins at ``at``, and where the next part stands."""
    sentence = parts[at][1]
    if not sentence or at + 1 >= len(parts) or parts[at + 1][0] != "correctness of the step":
        return None, at
    correct = _read_label(parts[at + 1][1])
    if correct is None:
        return None, at
    if at + 2 < len(parts) and parts[at + 2][0] == "explanation":
        return Block(sentence, correct, parts[at + 2][1]), at + 3
    return Block(sentence, correct), at + 2


def _read_label(said: str) -> bool | None:
    return _LABELS.get(said.strip(" .*").lower())
