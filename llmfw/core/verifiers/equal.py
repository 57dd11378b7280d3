"""Whether two LaTeX expressions mean the same: read by math-verify, compared exactly, at a few points where
they have unknowns.

Deterministic and bounded: what could take long (towers of powers, huge factorials, integrals) isn't judged at
all, and no clock decides. A decimal is the fraction that it writes, so 0.333 is not 1/3.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from llmfw.core.verifiers.bounds import bounded, fraction, unreadable

_LONGEST = 120
_WHOLE = (5, 7, 12, 9, 4, 11, 8, 6)
_THIRDS = (5, 8, 1, 11, 4, 10, 2, 7)
"""Values of unknowns: whole numbers, and numerators over 3 (``bounds`` knows them as no larger than 12)."""
_COUNTS = frozenset("ijklmn")
"""Names of unknowns that stand for whole numbers."""
_DIGITS = "1e-40"
_NOTHING = "1e-100"
"""Below it a value may be a zero that computer algebra doesn't see."""
_CLOSE = 0.02
"""How far off, of the value, what says that it's approximate may be."""
_ERRORS = (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)


@lru_cache(maxsize=20_000)
def parsed(latex: str) -> Any | None:
    """The sympy expression of a LaTeX string, or None where it's too long, too large, or no expression."""
    if len(latex) > _LONGEST or _explosive(latex) or unreadable(latex):
        return None
    from math_verify import LatexExtractionConfig, parse

    _silence()
    found = parse(
        f"${latex}$",
        extraction_config=[LatexExtractionConfig()],
        parsing_timeout=None,
        fallback_mode="no_fallback",
    )
    expression = found[0] if found else None
    plain = hasattr(expression, "free_symbols") and hasattr(expression, "subs")
    return _without_floats(expression) if plain and bounded(expression) else None


def _without_floats(expression: Any) -> Any:
    from sympy import Float

    return expression.xreplace({number: fraction(number) for number in expression.atoms(Float)})


@lru_cache(maxsize=20_000)
def equal(gold: str, claim: str) -> bool | None:
    """True, False, or None: it can't be told.

    Equal for unknowns above 0, those named i to n whole; for unknowns below 0, too, where either has an
    absolute value.
    """
    left, right = parsed(gold), parsed(claim)
    if left is None or right is None:
        return None
    names = sorted({str(symbol) for symbol in left.free_symbols | right.free_symbols})
    unsure = False
    for point in _points(names, signed="Abs(" in f"{left} {right}"):
        same = _agree(left, right, point)
        if same is False:
            return False
        unsure |= same is None
    return None if unsure else True


@lru_cache(maxsize=20_000)
def approximates(gold: str, claim: str) -> bool | None:
    """Of a claim that says that it's approximate: False where it's too far off, else None; never True."""
    left, right = parsed(gold), parsed(claim)
    if left is None or right is None:
        return None
    names = {str(symbol) for symbol in left.free_symbols}
    if not {str(symbol) for symbol in right.free_symbols} <= names:
        return None
    for point in _points(sorted(names), signed=False):
        try:
            one, other = (complex(side.evalf(30)) for side in _at(point, left, right))
        except _ERRORS:
            return None
        if abs(one - other) > _CLOSE * abs(one):
            return False
    return None


def _points(names: list[str], *, signed: bool) -> Iterator[dict[str, tuple[int, int]]]:
    """Values, as numerators and denominators, of the unknowns: each has another."""
    if not names:
        yield {}
        return
    signs = (1, -1) if signed else (1,)
    for shift in range(5):
        for sign in signs:
            whole = {name: _WHOLE[(at + shift) % len(_WHOLE)] for at, name in enumerate(names)}
            thirds = {name: _THIRDS[(at + shift) % len(_THIRDS)] for at, name in enumerate(names)}
            yield {name: (sign * value, 1) for name, value in whole.items()}
            if not _COUNTS.issuperset(names):
                yield {
                    name: (sign * whole[name], 1) if name in _COUNTS else (sign * thirds[name], 3)
                    for name in names
                }


def _agree(left: Any, right: Any, point: dict[str, tuple[int, int]]) -> bool | None:
    """Whether both have one value at a point: rational ones exactly, others in 40 digits, in which different
    numbers that are written so shortly don't agree.
    """
    from sympy import Float

    try:
        one, other = _at(point, left, right)
        if one.is_Rational and other.is_Rational:
            return bool(one == other)
        size = max(abs(one.evalf(15)), abs(other.evalf(15)))
        apart = abs((one - other).evalf(10, maxn=200))
        if not (size.is_finite and apart.is_finite) or size < Float(_NOTHING):
            return None
        return bool(apart <= Float(_DIGITS) * size)
    except _ERRORS:
        return None


def _at(point: dict[str, tuple[int, int]], *sides: Any) -> list[Any]:
    """Expressions with their unknowns' values at a point put in."""
    from sympy import Rational

    return [
        side.subs({symbol: Rational(*point[str(symbol)]) for symbol in side.free_symbols}).doit()
        for side in sides
    ]


def _silence() -> None:
    """The package warns that no clock stops it: none has to."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def _explosive(latex: str) -> bool:
    """Whether evaluating could take long (an exponent or factorial of a large number, a tower of powers), or
    what is written is seldom what is meant.
    """
    bare = latex.replace(" ", "")
    return bool(
        re.search(r"\^\{?-?\d{5}", bare)
        or re.search(r"\d{4,}!", bare)
        or re.search(r"\d[a-z]!|sqrt\[\w+\](?!\{)", bare)  # 2n! is often meant as (2n)!, sqrt[3] as sqrt(3)
        or re.search(r"[)}]\^\{?-?\d{4}", bare)
        or re.search(r"\d\)?\^\{?\d+\^", bare)
        or re.search(r"!!|\\sum|\\prod|\\d?dots|\\cdots|\.\.\.", bare)
    )
