"""Whether an answer says what the reference says: by its words, or by its number."""

from __future__ import annotations

import re
from fractions import Fraction

_MARK = re.compile(r"[\s*_#>-]*(?:final\s+)?answer[\s*_]*:", re.IGNORECASE)
_OPENING = ("$$", "$", r"\[", r"\(")
"""Lines that open a formula and say nothing yet."""
_NUMBER = re.compile(r"[+-]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_LONGEST = 1000
"""Characters of a text that is read as a number."""


def matches(answer: str, reference: str) -> bool:
    """Whether two texts are equal after ``normalised``, or are the same number (``number_of``)."""
    if normalised(answer) == normalised(reference):
        return True
    found = number_of(answer)
    return found is not None and found == number_of(reference)


def normalised(text: str) -> str:
    """The text in one case, with one blank for each run of white space, none at the ends."""
    return " ".join(text.casefold().split())


def number_of(text: str) -> Fraction | None:
    """The number that is all the text says; None where it says anything else.

    White space, a pair of dollar signs of mathematics, a final full stop, thousands commas and a fraction's
    bar are understood: ``$1,000$.``, ``2/4``, ``-0.50``. Units, words and expressions are not.
    """
    plain = text.strip().rstrip(".").strip().strip("$").strip().replace("\N{MINUS SIGN}", "-")
    if len(plain) > _LONGEST or not _NUMBER.fullmatch(plain):
        return None
    whole, _, below = plain.replace(",", "").partition("/")
    if below and int(below) == 0:
        return None
    return Fraction(whole) / (int(below) if below else 1)


def final_answer(text: str) -> str:
    """What stands behind the last ``Answer:`` that begins a line, to that line's end; without one, the whole
    text.
    """
    found = answer_line(text)
    return text if found is None else found


def answer_line(text: str, *, whole: bool = False) -> str | None:
    """What stands behind the last ``Answer:`` that begins a line: the rest of its line, or the next line that
    says anything; ``whole``: all the rest of the text. None without one.
    """
    lines = text.splitlines()
    for index in range(len(lines) - 1, -1, -1):
        mark = _MARK.match(lines[index])
        if mark is None:
            continue
        rest = [lines[index][mark.end() :], *lines[index + 1 :]]
        if whole:
            return "\n".join(rest).strip()
        said = [stripped for line in rest if (stripped := line.strip(" \t*_")) and stripped not in _OPENING]
        if said:
            return said[0]
    return None
