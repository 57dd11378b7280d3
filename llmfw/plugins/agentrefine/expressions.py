"""Regular expressions of strangers: which may be run on an action without a risk that they never end.

Python's ``re`` tries one after another the ways in which an expression may read a text, and has no time
limit. So the ways are counted before: a repetition may end after each character, an optional part may be
there or not, of alternatives one is taken. Expressions with more than ``MOST_WAYS`` on an action of
``LONGEST`` characters are refused, and so are repetitions of groups, look-around and references back.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

from .records import TrajectoryError

LONGEST: Final = 300
"""Characters of an action, or of a regular expression."""
MOST_WAYS: Final = 5 * 10**7
"""Some seconds' work for ``re`` at worst: three repetitions and 10 alternatives, or two and 1000."""
_PLAIN: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P<\w+>|:|[aims]+\))", re.DOTALL)
_QUANTIFIER: Final = r"(?:[*+?]|\{\d*,?\d*\})"
_GROUP_AGAIN: Final = re.compile(rf"\)(?!\?){_QUANTIFIER}")
_PART: Final = re.compile(rf"([()|])|({_QUANTIFIER})[?+]?")


@lru_cache(maxsize=4096)
def compiled(regex: str) -> re.Pattern[str]:
    """The expression, compiled once.

    Raises:
        TrajectoryError: it's no regular expression, too long, or one that might never end.
    """
    try:
        if len(regex) <= LONGEST and ways(regex) <= MOST_WAYS:
            return re.compile(regex)
    except re.error as error:
        raise TrajectoryError(
            "ACTION-REGEX",
            f"{_short(regex)} is no regular expression ({error})",
            mend="write one that Python's re understands",
        ) from None
    raise TrajectoryError(
        "ACTION-REGEX",
        f"the expression {_short(regex)} may take for ever on some action",
        mend=f"write at most {LONGEST} characters and three repetitions, no repetition of a group, no "
        "look-around, no reference back",
    )


def ways(regex: str) -> float:
    """In how many ways, at most, ``re`` may try the expression on an action; inf: nobody can say.

    q repetitions share n characters in C(n + q, q) ways. An optional part counts twice, k alternatives of a
    group k times; what stands in an alternative is counted as if it were always there.
    """
    plain = _PLAIN.sub(_plainly, regex)
    if "(?" in plain or "\\" in plain or _GROUP_AGAIN.search(plain):
        return math.inf
    repetitions, found, bars = 0, 1.0, [0]
    for hit in _PART.finditer(plain):
        mark, quantifier = hit.groups()
        if mark == "(":
            bars.append(0)
        elif mark == "|":
            bars[-1] += 1
        elif mark == ")" and len(bars) > 1:
            found *= 1 + bars.pop()
        elif quantifier == "?":
            found *= 2
        elif quantifier is not None and not quantifier[1:-1].isdigit():
            repetitions += 1
    return found * (1 + bars[0]) * math.comb(LONGEST + repetitions, repetitions)


def _plainly(hit: re.Match[str]) -> str:
    """An escaped character, a set of characters and a flag are one character; the name of a group goes,
    references back stay.
    """
    said = hit[0]
    if said[0] == "(" and said[-1] != ")":
        return "("
    return said if re.fullmatch(r"\\[1-9]", said) else "x"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
