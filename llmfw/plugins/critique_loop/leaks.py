"""Whether a critique says the gold answer, in whatever way numbers are written. Plain Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

_DECIMAL: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER: Final = re.compile(
    rf"(?<![\w./])(?:\\d?frac\{{({_DECIMAL})\}}\{{({_DECIMAL})\}}|({_DECIMAL})(?:/({_DECIMAL}))?)"
    r"(?!\w|\.[0-9]|/[0-9])"
)
_MINUS: Final = ("-", "\N{MINUS SIGN}")

_ONES: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS: Final = re.compile(
    rf"(minus\s+|negative\s+)?(?:({'|'.join(_TENS)})(?:[-\s]({'|'.join(_ONES[1:10])}))?|({'|'.join(_ONES)}))",
    re.IGNORECASE,
)
_AT_THE_END: Final = re.compile(
    rf"(?:\b(?:is|be|equals|makes|gives|gets?|to)|[=:])\s+({_WORDS.pattern})\s*(?=[.!;\n]|$)", re.IGNORECASE
)
"""A number in words that ends a sentence behind a word that says what something comes to: ``a wrong one.``
isn't a number.
"""


def leaks(critique: str, answer: str) -> bool:
    """Whether a critique says the gold answer: a number of this value (``0.5``, ``1/2``; ``-4`` isn't ``4``,
    the parts of a fraction or of a longer number are none), up to ninety-nine also in words at a sentence's
    end; or another answer as words of its own.
    """
    wanted = value_of(answer)
    if wanted is not None:
        return wanted in set(numbers_in(critique))
    said = re.escape(answer.strip())
    return bool(said) and re.search(rf"(?<![\w.]){said}(?!\w|\.[0-9])", critique) is not None


def value_of(text: str) -> Fraction | None:
    """The number that a text is, None where it's something else, or more."""
    said = text.strip().strip("$").strip()
    if words := _WORDS.fullmatch(said):
        return _in_words(words)
    bare = said[1:].lstrip() if said.startswith(_MINUS) else said
    found = _NUMBER.fullmatch(bare)
    value = None if found is None else _in_digits(found)
    return value if value is None or bare == said else -value


def numbers_in(text: str) -> Iterator[Fraction]:
    """The numbers that a text holds; a minus between two of them takes away, and belongs to none."""
    for found in _NUMBER.finditer(text):
        value = _in_digits(found)
        if value is not None:
            yield -value if _negative(text[: found.start()].rstrip(" ")) else value
    for found in _AT_THE_END.finditer(text):
        words = _WORDS.fullmatch(found[1])
        assert words is not None
        yield _in_words(words)


def _negative(before: str) -> bool:
    """Whether what stands before a number ends in its sign."""
    if not before.endswith(_MINUS):
        return False
    left = before[:-1]
    return not re.search(r"[\w)}\]]$|[0-9)}\]]\s*$", left)


def _in_digits(found: re.Match[str]) -> Fraction | None:
    over, under = (found[1], found[2]) if found[1] else (found[3], found[4])
    value = Fraction(over.replace(",", ""))
    if under is None:
        return value
    below = Fraction(under.replace(",", ""))
    return value / below if below else None


def _in_words(found: re.Match[str]) -> Fraction:
    minus, tens, ones, small = (part.lower() if part else None for part in found.groups())
    if tens:
        value = 10 * (_TENS.index(tens) + 2) + (_ONES.index(ones) if ones else 0)
    else:
        assert small is not None
        value = _ONES.index(small)
    return Fraction(-value if minus else value)
