"""Whether an answer says what the reference says: by its words, or by its number."""

from __future__ import annotations

import re
from fractions import Fraction

_FINAL = re.compile(
    r"^[\s*_#>-]*(?:final\s+)?answer[\s*_]*:[\s*_]*(.+?)[\s*_]*$", re.IGNORECASE | re.MULTILINE
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")


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
    if not _NUMBER.fullmatch(plain):
        return None
    whole, _, below = plain.replace(",", "").partition("/")
    if below and int(below) == 0:
        return None
    return Fraction(whole) / (int(below) if below else 1)


def final_answer(text: str) -> str:
    """What stands behind the last ``Answer:`` that begins a line, to that line's end; without one, the whole
    text.
    """
    found = _FINAL.findall(text)
    return found[-1] if found else text
