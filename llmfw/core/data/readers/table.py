"""Tables: csv and tsv, with a header; cells are text, and JSON where a key of that name wants a structure."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.readers.common import BadRows, ReadCounts, decoded, lines_of
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError

STRUCTURES: Final = frozenset(
    {"messages", "conversations", "conversation", "tools", "tool_calls", "spans", "extra", "meta", "tests"}
)
"""Keys whose cells are JSON, in tables and where a column of strings stands for them."""
MAY_BE_MESSAGES: Final = frozenset({"prompt", "chosen", "rejected", "completion"})
NUMBERS: Final = frozenset({"reward"})
"""Keys whose values are numbers."""


def read_csv(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any]
) -> Iterator[tuple[int, object]]:
    """(line on which the record begins, row) of a comma-separated table."""
    return _read(path, bad, counts, str(options.get("delimiter", ",")))


def read_tsv(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any]
) -> Iterator[tuple[int, object]]:
    """(line on which the record begins, row) of a tab-separated table."""
    return _read(path, bad, counts, str(options.get("delimiter", "\t")))


def _read(path: Path, bad: BadRows, counts: ReadCounts, delimiter: str) -> Iterator[tuple[int, object]]:
    delimiter = {"tab": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(
            "DATA-OPTIONS",
            f"{delimiter!r} is no delimiter",
            key="data.options.delimiter",
            mend="give one character, or tab",
        )
    csv.field_size_limit(2**31 - 1)  # the library's 128 KiB are less than a long document
    records = csv.reader(_texts(path, counts), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = records.line_num + 1
        try:
            fields = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _misquoted(error, line, records.line_num)
            if header is None or "end of data" in str(error):
                raise DataError("DATA-CSV", problem.what, file=path, line=line, mend=problem.mend) from error
            bad.refuse(f"{path}:{line}", problem)
            continue
        if not any(field.strip() for field in fields):
            counts.blank += 1
            continue
        if header is None:
            header = _header(fields, path, line, delimiter)
            continue
        try:
            if len(fields) != len(header):
                raise RowError(
                    f"the row has {len(fields)} fields, the header {len(header)}",
                    mend="put fields that hold a delimiter, quote or line end between double quotes",
                )
            yield line, row_of(dict(zip(header, fields, strict=True)))
        except RowError as found:
            bad.refuse(f"{path}:{line}", found)


def _texts(path: Path, counts: ReadCounts) -> Iterator[str]:
    for number, line in lines_of(path, counts):
        try:
            yield decoded(line)
        except RowError as problem:  # a quoted field may go on: the lines after it can't be told apart
            raise DataError(
                "DATA-ENCODING", problem.what, file=path, line=number, mend=problem.mend
            ) from None


def _header(fields: list[str], path: Path, line: int, delimiter: str) -> list[str]:
    names = [field.strip() for field in fields]
    odd = [name for name in names if not name or names.count(name) > 1]
    if odd:
        what = f"the column {odd[0]} occurs twice" if odd[0] else f"column {names.index('') + 1} has no name"
        raise DataError(
            "DATA-CSV",
            f"the header is not usable: {what}",
            file=path,
            line=line,
            mend="name every column once in the first line, e.g. prompt,completion",
        )
    other = next((mark for mark in ("\t", ";", ",", "|") if mark != delimiter and mark in names[0]), None)
    if len(names) == 1 and other:
        named = {"\t": "tabs (.tsv)", ";": "semicolons", ",": "commas (.csv)", "|": "bars"}[other]
        raise DataError(
            "DATA-CSV",
            f"the header is one column, with {named} in it",
            file=path,
            line=line,
            mend=f'set data.options.delimiter="{"tab" if other == chr(9) else other}", or rename the file',
        )
    return names


def _misquoted(error: csv.Error, first: int, last: int) -> RowError:
    said = str(error)
    if "end of data" in said:
        what = "a quote is opened and never closed"
    else:
        what = f"the quoting is broken ({said})" + (f" up to line {last}" if last > first else "")
    return RowError(what, mend='double a quote inside a quoted field ("")')


def row_of(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The row that a record means: an empty cell is no value (null); cells of structures are JSON; ``reward``
    is a number.

    Raises:
        RowError: a cell that must be JSON or a number and isn't.
    """
    row: dict[str, Any] = {}
    for key, cell in cells.items():
        if not isinstance(cell, str):
            row[key] = cell
        elif cell == "":
            row[key] = None
        elif key in STRUCTURES:
            row[key] = structure(cell, key)
        elif key in MAY_BE_MESSAGES:
            row[key] = messages_or_text(cell)
        elif key == "solution":
            row[key] = steps_or_text(cell)
        elif key in NUMBERS:
            row[key] = _number(cell, key)
        else:
            row[key] = cell
    return row


def structure(cell: str, key: str) -> Any:
    """The JSON in a cell."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise RowError(
            f"the cell is not JSON: {said[:1].lower()}{said[1:]}",
            key=key,
            mend='write JSON, e.g. [{"role": "user", "content": "..."}]',
        ) from None


def messages_or_text(cell: str) -> Any:
    """The message list that a cell spells in JSON, or the cell."""
    if not cell.lstrip().startswith("[{"):
        return cell
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    messages = isinstance(found, list) and found and all(isinstance(one, dict) for one in found)
    return found if messages and all("role" in one or "from" in one for one in found) else cell


def steps_or_text(cell: str) -> Any:
    """The list of steps that a cell spells in JSON, or the cell."""
    if not cell.lstrip().startswith('["'):
        return cell
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return found if isinstance(found, list) and all(isinstance(step, str) for step in found) else cell


def _number(cell: str, key: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise RowError(f"{cell[:40]!r} is no number", key=key, mend="write a number") from None
