"""The method: read the last number of a text, and compare two numbers. Plain Python."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-+−]?)"
    r"(?:(?P<above>\d+)\s*/\s*(?P<below>\d+)|(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?P<part>\.\d+)?(?:e(?P<ten>[-+]?\d{1,2}))?)"
    r"(?P<percent>\s*%)?(?![\w])"
)


def last_number(text: str) -> float | None:
    """The last number of a text: 12, -1,200.5, 3/4, 5e-3 or 12 %; None: there is none."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    if found["below"] is not None:
        if int(found["below"]) == 0:
            return None
        value = int(found["above"]) / int(found["below"])
    else:
        value = float(found["whole"].replace(",", "") + (found["part"] or "")) * 10.0 ** int(
            found["ten"] or 0
        )
    if found["percent"]:
        value /= 100
    return -value if found["sign"] in ("-", "−") else value


def same(left: float, right: float, *, tolerance: float) -> bool:
    """Whether two numbers differ by at most ``tolerance`` times the larger one's size."""
    return math.isclose(left, right, rel_tol=tolerance, abs_tol=0.0) or left == right
