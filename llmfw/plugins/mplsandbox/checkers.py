"""Comparing what a program printed, or returned, with what is expected."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from .records import Checker


def accepts(checker: Checker, output: str, expected: str) -> bool:
    """Whether the output is right; not for ``program`` checkers, which are programs."""
    match checker.name:
        case "exact":
            return output == expected
        case "tokens":
            return output.split() == expected.split()
        case "float":
            return _near(output.split(), expected.split(), checker.tolerance)
        case "unordered":
            return _lines(output) == _lines(expected)
        case _:
            raise ValueError(f"checker {checker.name} isn't a comparison")


def _lines(text: str) -> Counter[tuple[str, ...]]:
    return Counter(tuple(line.split()) for line in text.splitlines() if line.strip())


def _near(mine: list[str], theirs: list[str], tolerance: float) -> bool:
    return len(mine) == len(theirs) and all(
        one == other or _close(one, other, tolerance) for one, other in zip(mine, theirs)
    )


def _close(one: str, other: str, tolerance: float) -> bool:
    try:
        a, b = float(one), float(other)
    except ValueError:
        return False
    return a == b or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def same_value(value: Any, expected: Any, checker: Checker) -> bool:
    """Whether two JSON values are equal, with exact types (True isn't 1, 1 isn't 1.0); under ``float``
    numbers are equal within the tolerance, under ``unordered`` lists are equal in any order.
    """
    near = checker.tolerance if checker.name == "float" else None
    if near is not None and _number(value) and _number(expected):
        return value == expected or math.isclose(value, expected, rel_tol=near, abs_tol=near)
    if type(value) is not type(expected):
        return False
    if isinstance(value, dict):
        return value.keys() == expected.keys() and all(
            same_value(value[key], expected[key], checker) for key in value
        )
    if isinstance(value, list):
        if len(value) != len(expected):
            return False
        if checker.name == "unordered":
            return _any_order(value, list(expected), checker)
        return all(same_value(one, other, checker) for one, other in zip(value, expected))
    return bool(value == expected) or (
        isinstance(value, float) and math.isnan(value) and math.isnan(expected)
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _any_order(values: list[Any], expected: list[Any], checker: Checker) -> bool:
    for value in values:
        at = next((i for i, other in enumerate(expected) if same_value(value, other, checker)), None)
        if at is None:
            return False
        del expected[at]
    return True
