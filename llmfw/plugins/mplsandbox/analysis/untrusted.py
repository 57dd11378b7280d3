"""Reading what programs and tools wrote: capped, typed, free of control characters; never trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

REPORT = 4 << 20
"""Bytes of a tool's report that are read; a longer one is refused, not cut."""
TEXT = 500
"""Characters of a message."""
ARTEFACT = 200_000
"""Characters of an artefact."""
LINE = 1000
"""Characters of a line that are matched against patterns."""
COUNT = 2000
"""Entries of a list that are looked at."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Unreadable(ValueError):
    """A report that isn't what its tool writes."""


def clean(value: Any, limit: int = TEXT) -> str:
    """A value as text of bounded length without control and direction-changing characters."""
    text = value if isinstance(value, str) else "" if value is None else str(value)[: limit + 1]
    text = _CONTROL.sub(" ", text[: limit + 1].replace("\r\n", "\n").replace("\x1b", ""))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def words(value: Any, limit: int = TEXT) -> str:
    """A value as one line of text."""
    return " ".join(clean(value, 4 * limit).split())[:limit]


def whole(value: Any, limit: int = 10_000_000) -> int:
    """A value as an integer between 0 and ``limit``; 0 where it's none."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return min(max(0, int(value)), limit)


def number(value: Any) -> float | None:
    """A value as a finite number; None where it's none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def parsed(text: str) -> Any:
    """JSON of a tool.

    Raises:
        Unreadable: it's too long, too deep or no JSON.
    """
    if len(text) > REPORT:
        raise Unreadable(f"its report has more than {REPORT >> 20} MiB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"its report isn't JSON: {words(error, 100)}") from error


def table(value: Any) -> Mapping[str, Any]:
    """A value as a JSON object; empty where it's none."""
    return value if isinstance(value, dict) else {}


def rows(value: Any, limit: int = COUNT) -> list[Any]:
    """A value as a JSON array of bounded length; empty where it's none."""
    return value[:limit] if isinstance(value, list) else []


def at(value: Any, path: str) -> Any:
    """What a dotted path leads to, such as ``place.line``, ``spans.0.line`` or ``files.*.messages`` (``*``:
    the first); None: nothing.
    """
    for part in path.split(".") if path else ():
        if part == "*":
            value = next(iter(table(value).values()), None)
        elif isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = table(value).get(part)
    return value
