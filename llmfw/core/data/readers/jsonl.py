"""One JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.readers.common import BadRows, ReadCounts, decoded, lines_of
from llmfw.core.data.row_checks import RowError


def read_jsonl(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any] | None = None
) -> Iterator[tuple[int, object]]:
    """(line number from 1, object) of a file with one JSON object a line; blank lines are counted and passed
    over.
    """
    for number, line in lines_of(path, counts):
        if not line.strip():
            counts.blank += 1
            continue
        try:
            yield number, parse(line)
        except RowError as problem:
            bad.refuse(f"{path}:{number}", problem)


def parse(line: bytes) -> object:
    """The JSON value of a line.

    Raises:
        RowError: it isn't strict JSON.
    """
    text = decoded(line.rstrip(b"\r\n"))
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        hint = (
            "put each object on one line of its own, or call the file .json"
            if text.strip() in ("{", "[") or text.lstrip().startswith("[")
            else "mend the line"
        )
        raise RowError(f"not JSON: {said_of(error)} at column {error.colno}", mend=hint) from None
    except RecursionError:
        raise RowError("the object is nested too deeply", mend="flatten it") from None
    except ValueError as error:  # e.g. an integer of more digits than python converts
        raise RowError(f"not JSON: {error}", mend="mend the line") from None


def said_of(error: json.JSONDecodeError) -> str:
    """Python's words, as they stand inside a sentence."""
    said = error.msg.removesuffix(" at")
    return said[:1].lower() + said[1:]


def _refuse_constant(name: str) -> Any:
    raise RowError(f"{name} is not a JSON number", mend="write null or a finite number, or remove the key")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise RowError(f"{digits} is beyond the range of numbers", mend="write a smaller number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowError("the key occurs twice in one object", key=twice, mend="remove one of them")
    return made


DECODER: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object
)
"""Strict JSON: finite numbers, no key twice."""
