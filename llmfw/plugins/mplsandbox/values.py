"""JSON values as they cross a sandbox's wall, and the frames in which they do.

What JSON can't say has a mark: ``{"$tuple": [...]}``, ``$set``, ``$bytes``, ``$dict`` (keys that aren't
text), ``$float`` (not finite), ``$complex``. data/calls/ holds the same rules for the languages inside.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any


def plain(value: Any) -> Any:
    """A Python value as JSON with marks.

    Raises:
        TypeError: it's of a type that can't cross.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case list():
            return [plain(one) for one in value]
        case tuple():
            return {"$tuple": [plain(one) for one in value]}
        case set() | frozenset():
            return {"$set": [plain(one) for one in value]}
        case bytes():
            return {"$bytes": list(value)}
        case complex():
            return {"$complex": [repr(value.real), repr(value.imag)]}
        case dict() if all(isinstance(key, str) for key in value):
            return {key: plain(one) for key, one in value.items()}
        case dict():
            return {"$dict": [[plain(key), plain(one)] for key, one in value.items()]}
    raise TypeError(f"a value of type {type(value).__name__} can't enter a sandbox")


def frame(value: Any) -> bytes:
    """A value as 8 bytes of length and its JSON."""
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


def frames(data: bytes) -> list[Any]:
    """The whole frames of what was heard; what isn't one, or is nested too deeply to be one, ends them."""
    found: list[Any] = []
    while len(data) >= 8:
        (size,) = struct.unpack("<Q", data[:8])
        if size > len(data) - 8:
            break
        try:
            found.append(json.loads(data[8 : 8 + size]))
        except (ValueError, RecursionError):
            break
        data = data[8 + size :]
    return found
