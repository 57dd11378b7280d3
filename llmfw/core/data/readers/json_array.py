"""A JSON file: an array of objects, or an object with one such array; rows are named by their lines.

A ``.json`` file that holds one object a line is read as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmfw.core.data.readers.common import BadRows, ReadCounts, decoded, not_unpacked, open_bytes, without_bom
from llmfw.core.data.readers.jsonl import DECODER, read_jsonl, said_of
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError

_BLANK = re.compile(r"[ \t\r\n]*")


def read_json(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any]
) -> Iterator[tuple[int, object]]:
    """(line on which the row begins, object) of every row.

    ``options["rows"]`` names the array where an object holds several.

    Raises:
        DataError: broken JSON, with its line and column; a file of another shape.
    """
    text = _text(path, counts)
    at = _skip(text, 0)
    if text[at : at + 1] == "[":
        return _elements(path, text, at, bad, counts)
    if text[at : at + 1] != "{":
        raise _shape(path, "it holds neither an array nor an object" if text[at:] else "it is empty")
    if "rows" not in options and _one_a_line(text, at):
        return read_jsonl(path, bad, counts)
    return _elements(path, text, _array_in(path, text, at, options.get("rows")), bad, counts)


def _text(path: Path, counts: ReadCounts) -> str:
    with open_bytes(path) as handle:
        try:
            raw = handle.read()
        except (OSError, EOFError) as error:
            raise not_unpacked(path, error) from error
    raw = without_bom(raw, path, counts)
    try:
        return decoded(raw, "file")
    except RowError as problem:
        raise DataError("DATA-ENCODING", problem.what, file=path, mend=problem.mend) from None


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _one_a_line(text: str, at: int) -> bool:
    """Whether more follows the first object, or the first line is an object of its own."""
    first = text[at : end if (end := text.find("\n", at)) >= 0 else len(text)]
    try:
        _, stop = json.JSONDecoder().raw_decode(first)
    except (json.JSONDecodeError, RecursionError):
        return False
    return bool(text[_skip(text, at + stop) :])


def _elements(
    path: Path, text: str, at: int, bad: BadRows, counts: ReadCounts
) -> Iterator[tuple[int, object]]:
    """The array's elements from its ``[`` on, each with its line."""
    line, seen = 1, 0
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return
    while True:
        line, seen = line + text.count("\n", seen, at), at
        try:
            value, at = _decode(path, text, at, line)
            yield line, value
        except RowError as problem:
            bad.refuse(f"{path}:{line}", problem)
            _, at = _decode(path, text, at, line, strict=False)
        at = _skip(text, at)
        mark = text[at : at + 1]
        if mark == "]":
            break
        if mark != ",":
            raise _broken(path, text, at, "expecting ',' or the end of the array")
        at = _skip(text, at + 1)
    counts.lines += text.count("\n") + 1


def _decode(path: Path, text: str, at: int, line: int, *, strict: bool = True) -> tuple[Any, int]:
    """(value, where it ends); a RowError where the value is complete but can't be used."""
    try:
        return (DECODER if strict else json.JSONDecoder()).raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _broken(path, text, error.pos, said_of(error)) from None
    except RecursionError:
        raise DataError(
            "DATA-JSON", "the row is nested too deeply", file=path, line=line, mend="flatten it"
        ) from None
    except ValueError as error:  # e.g. an integer of more digits than python converts
        raise DataError(
            "DATA-JSON", f"not JSON: {error}", file=path, line=line, mend="mend the row"
        ) from None


def _broken(path: Path, text: str, at: int, what: str) -> DataError:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    cut = " (the file ends here: it is cut off)" if at >= len(text.rstrip()) else ""
    return DataError(
        "DATA-JSON",
        f"not JSON: {what} at column {column}{cut}",
        file=path,
        line=line,
        mend="mend the file; with one object a line (.jsonl) single rows can be skipped",
    )


def _array_in(path: Path, text: str, at: int, wanted: object) -> int:
    """Where the object's array of rows begins."""
    arrays: dict[str, int] = {}
    keys: list[str] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        key, at = _decode(path, text, at, 1, strict=False)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _broken(path, text, at, "expecting ':'")
        at = _skip(text, at + 1)
        keys.append(str(key))
        value, end = _decode(path, text, at, 1, strict=False)
        if isinstance(value, list) and all(isinstance(item, dict) for item in value[:3]) and value:
            arrays[str(key)] = at
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    if wanted is not None:
        if str(wanted) not in arrays:
            raise DataError(
                "DATA-JSON",
                f"it holds no array of rows named {wanted} (keys: {', '.join(keys[:8]) or 'none'})",
                file=path,
                key="data.options.rows",
                mend=f"name one of: {', '.join(arrays) or 'none is there'}",
            )
        return arrays[str(wanted)]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if arrays:
        raise DataError(
            "DATA-JSON",
            f"it holds several arrays of rows: {', '.join(arrays)}",
            file=path,
            mend=f"name one: data.options.rows={next(iter(arrays))}",
        )
    raise _shape(path, f"it is one object without an array of rows (keys: {', '.join(keys[:8]) or 'none'})")


def _shape(path: Path, what: str) -> DataError:
    return DataError(
        "DATA-JSON", what, file=path, mend='make it an array of objects, [{...}, {...}], or {"data": [...]}'
    )
