"""What computer algebra is given: nothing whose parse or value could take long, told without a clock."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

_DEEPEST = 5
"""Brackets inside of each other: the parser takes about twice as long for each."""
_BITS = 100_000.0
"""Binary digits of the largest number that is worked out."""
_ARGUMENT = 1_000.0
"""Binary digits of the largest argument of a sine or a logarithm."""
_UNKNOWN = math.log2(12)
_PARTS = math.log2(3)
"""Unknowns are given whole numbers up to 12, and thirds of them."""
_ELEMENTARY = "sin cos tan cot sec csc asin acos atan sinh cosh tanh asinh acosh atanh log".split()
_NO_LARGER = (
    "Abs ceiling floor re im conjugate sign Min Max Mod gcd lcm UnevaluatedExpr Equality FiniteSet Interval"
).split()
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_BINOMIAL = re.compile(rf"\\[dt]?binom\s*{_GROUP}\s*{_GROUP}")
_CHOOSE = re.compile(r"\{([^{}]*?)\\choose(?![A-Za-z])([^{}]*?)\}")
_KNOWN = re.compile(r"\\(?:cdot|times|[lr]floor|[lr]ceil|[dt]?frac|left|right)(?![A-Za-z])")
Size = tuple[float, float]
"""Upper bounds of log2 of a value's numerator and of its denominator."""


def unreadable(latex: str) -> bool:
    """Whether the parser could take long: over brackets deep inside of each other, or over binomials and
    common divisors, which it works out as it reads.
    """
    divisors = re.search(r"gcd|lcm", latex) and re.search(r"[\^!]", latex)
    return bool(divisors) or _nested(latex) or not _binomials_are_plain(latex)


def _nested(latex: str) -> bool:
    depth = deepest = 0
    for sign in latex:
        if sign in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")}]":
            depth = max(0, depth - 1)
    return deepest > _DEEPEST or latex.count("|") > 2 * _DEEPEST


def _binomials_are_plain(latex: str) -> bool:
    """Whether each binomial is of whole numbers below 10,000 or of unknowns, none inside of another."""
    for groups in (*_BINOMIAL.findall(latex), *_CHOOSE.findall(latex)):
        for group in groups:
            bare = _KNOWN.sub(" ", group).strip()
            unknown = re.search(r"[a-df-hj-zA-Z]", bare) and "\\" not in bare
            if not unknown and not re.fullmatch(r"\d{1,4}", bare):
                return False
    return not re.search(r"binom|choose", _CHOOSE.sub("", _BINOMIAL.sub("", latex)))


def bounded(expression: Any) -> bool:
    """Whether a sympy expression, not worked out yet, has a value that is soon worked out: arithmetic,
    powers, factorials and elementary functions whose numbers stay below 100,000 binary digits, with unknowns
    up to 12, whole or in thirds.
    """
    try:
        return max(_size(expression)) <= _BITS
    except (ArithmeticError, AttributeError, TypeError, ValueError, RecursionError):
        return False


def _size(node: Any) -> Size:
    """Bounds of a node's value; infinite where they aren't known."""
    if not node.args:
        return _leaf(node)
    name = type(node).__name__
    if name == "Pow":
        return _power(_size(node.args[0]), node.args[1])
    parts = [_size(part) for part in node.args]
    if name in _RULES:
        return _RULES[name](parts)
    if name in _NO_LARGER or any(kind.__name__ == "AppliedUndef" for kind in type(node).__mro__):
        return _largest(parts)  # the second: a function that nobody defined, as in f(x)
    return math.inf, math.inf


def _leaf(node: Any) -> Size:
    if getattr(node, "is_Rational", False):
        return _log2(int(node.p)), _log2(int(node.q))
    if getattr(node, "is_Float", False):
        return _leaf(fraction(node))
    if getattr(node, "is_Symbol", False):
        return _UNKNOWN, _PARTS
    return (2.0, 0.0) if getattr(node, "is_number", False) else (math.inf, math.inf)


def fraction(number: Any) -> Any:
    """What a decimal writes, as sympy's rational number: 0.1 is 1/10."""
    from sympy import Rational

    return Rational(str(number))


def _power(base: Size, exponent: Any) -> Size:
    if getattr(exponent, "is_Integer", False) and abs(int(exponent)) < _BITS:
        times = abs(int(exponent))
        top, below = base if int(exponent) > 0 else base[::-1]
        return top * times, below * times
    most = max(*base, 1.0) * 2.0 ** _size(exponent)[0]
    return most, most


def _sum(parts: list[Size]) -> Size:
    below = math.fsum(part[1] for part in parts)
    return max(part[0] for part in parts) + below + math.log2(len(parts)), below


def _product(parts: list[Size]) -> Size:
    return math.fsum(part[0] for part in parts), math.fsum(part[1] for part in parts)


def _largest(parts: list[Size]) -> Size:
    return max(part[0] for part in parts), max(part[1] for part in parts)


def _elementary(parts: list[Size]) -> Size:
    most = max(_largest(parts))
    return (64.0, 64.0) if most <= _ARGUMENT else (math.inf, math.inf)


def _exponential(parts: list[Size]) -> Size:
    most = 2.0 * 2.0 ** parts[0][0]
    return most, most


def _factorial(parts: list[Size]) -> Size:
    most = 2.0 ** parts[0][0] * max(parts[0][0], 1.0)
    return most, most


def _binomial(parts: list[Size]) -> Size:
    most = 2.0 ** max(_largest(parts))
    return most, most


def _log2(number: int) -> float:
    return math.log2(abs(number)) if number else 0.0


_RULES: dict[str, Callable[[list[Size]], Size]] = {
    "Add": _sum,
    "Mul": _product,
    "exp": _exponential,
    "factorial": _factorial,
    "binomial": _binomial,
    **dict.fromkeys(_ELEMENTARY, _elementary),
}
