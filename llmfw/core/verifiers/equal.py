"""Whether two LaTeX expressions mean the same: math-verify, seconded by exact evaluation at a few points.

Deterministic and bounded: what could take long (towers of powers, huge factorials, integrals) isn't judged at
all, and no clock decides.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from llmfw.core.verifiers.bounds import bounded, unreadable

_LONGEST = 120
_POINTS = (5, 7, 12, 9, 4, 11, 8, 6)
_CLOSE = 0.02


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
    return expression if plain and bounded(expression) else None


@lru_cache(maxsize=20_000)
def equal(gold: str, claim: str, approximate: bool = False) -> bool | None:
    """True, False, or None: it can't be told. ``approximate`` claims can be false, never true."""
    left, right = parsed(gold), parsed(claim)
    if left is None or right is None:
        return None
    names = sorted({str(symbol) for symbol in left.free_symbols | right.free_symbols})
    if not {str(symbol) for symbol in right.free_symbols} <= {str(symbol) for symbol in left.free_symbols}:
        return None if approximate else False  # it speaks of unknowns that the answer doesn't depend on
    values = [_values(left, right, names, shift) for shift in range(3 if names else 1)]
    if any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    if approximate:
        return None if all(_near(*pair) for pair in known) else False
    same = all(one == other or abs(one - other) <= 1e-9 * max(1.0, abs(one)) for one, other in known)
    if not same:
        return False
    return True if names or _digits_agree(left, right) or _verified(left, right) else None


def _digits_agree(left: Any, right: Any) -> bool:
    """Whether two exact constants agree in 40 digits: different ones that are written so shortly don't."""
    from sympy import Float

    if left.has(Float) or right.has(Float):
        return False
    try:
        apart = complex((left.doit() - right.doit()).evalf(10, maxn=200))
        return abs(apart) <= 1e-40 * max(1.0, abs(complex(left.doit().evalf(20))))
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        return False


def _silence() -> None:
    """The package warns that no clock stops it: none has to."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def _verified(left: Any, right: Any) -> bool:
    from math_verify import verify

    return bool(verify(left, right, timeout_seconds=None))


def _values(left: Any, right: Any, names: list[str], shift: int) -> tuple[complex, complex] | None:
    """Both expressions at one point: each unknown gets an integer of its own."""
    point = {name: _POINTS[(index + shift) % len(_POINTS)] for index, name in enumerate(names)}
    found: list[complex] = []
    for expression in (left, right):
        try:
            at = expression.subs({symbol: point[str(symbol)] for symbol in expression.free_symbols})
            value = complex(at.doit().evalf(30))
        except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
            return None
        if value != value or abs(value) == float("inf"):
            return None
        found.append(value)
    return found[0], found[1]


def _near(one: complex, other: complex) -> bool:
    return abs(one - other) <= _CLOSE * max(abs(one), 1e-9)


def _explosive(latex: str) -> bool:
    """Whether evaluating could take long (a number of many digits, an exponent or factorial of a large one, a
    tower of powers), or what is written is seldom what is meant.
    """
    bare = latex.replace(" ", "")
    return bool(
        re.search(r"\d{25}", bare)
        or re.search(r"\^\{?-?\d{5}", bare)
        or re.search(r"\d{4,}!", bare)
        or re.search(r"\d[a-z]!|sqrt\[\w+\](?!\{)", bare)  # 2n! is often meant as (2n)!, sqrt[3] as sqrt(3)
        or re.search(r"[)}]\^\{?-?\d{4}", bare)
        or re.search(r"\d\)?\^\{?\d+\^", bare)
        or re.search(r"!!|\\sum|\\prod|\\d?dots|\\cdots|\.\.\.", bare)
    )
