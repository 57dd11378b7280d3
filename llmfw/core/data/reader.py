"""Reads data files; every bad row is named by file, line and key.

A file's suffix chooses its reader (``READERS``); a reader yields (line or row number, object) and the rest is
shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmfw.core.data.dialects import translated
from llmfw.core.data.files import READERS as READERS
from llmfw.core.data.files import data_files as data_files
from llmfw.core.data.files import is_data_file as is_data_file
from llmfw.core.data.formats import PLACE, Form, RowError, canonical, said_hash
from llmfw.core.data.readers.common import BadRows as BadRows
from llmfw.core.data.readers.common import ReadCounts as ReadCounts
from llmfw.core.data.readers.common import lines_of, suffix_of
from llmfw.core.data.readers.jsonl import read_jsonl as read_jsonl
from llmfw.core.errors import DataError
from llmfw.core.records import Row


def read_rows(
    paths: Iterable[Path], bad: BadRows, counts: ReadCounts, kind: str | None = None
) -> tuple[Form, list[Row]]:
    """The checked rows of these files and their one form.

    Raises:
        DataError: a file that can't be read, a bad row (by policy), or no rows at all.
    """
    paths = list(paths)
    rows = check_rows(located(paths, bad, counts, kind=kind), bad, kind)
    counts.rows += len(rows[1])
    if not rows[1]:
        where = paths[0] if len(paths) == 1 else None
        left = f"; {bad.count} were skipped, the first: {bad.messages[0]}" if bad.count else ""
        raise DataError(
            "NO-ROWS", f"there are no rows in it{left}", file=where, mend="give a file with at least one row"
        )
    return rows


def check_rows(
    located: Iterable[tuple[str, object]],
    bad: BadRows,
    kind: str | None = None,
    *,
    seen_before: dict[str, str] | None = None,
    counts: ReadCounts | None = None,
) -> tuple[Form, list[Row]]:
    """Rows in canonical form, all of one form and with unique ids, from (place, object); bad ones go to
    ``bad``.

    With ``seen_before`` (hash of what a row says -> its place) rows whose content is in it already are
    dropped and counted in ``counts``, and new ones are added.
    """
    form: Form | None = None
    first = ""
    seen: dict[str, str] = {}
    rows: list[Row] = []
    for place, raw in located:
        try:
            found, row = checked(raw, kind)
            if form is not None and found != form:
                raise RowError(
                    f"this is a {found} row, but {first} is a {form} row",
                    mend="keep one form a file, or set data.kind",
                )
            if seen_before is not None:
                said = said_hash(row)
                if said in seen_before:
                    if counts is not None:
                        counts.duplicates += 1
                    continue
                seen_before[said] = place
            if row["id"] in seen:
                given = "id" if isinstance(raw, dict) and raw.get("id") is not None else None
                what = f"the id {row['id']} occurs twice" if given else "the same content occurs twice"
                raise RowError(
                    f"{what}, first at {seen[row['id']]}",
                    key=given,
                    mend="remove one of them or rename it" if given else "set data.deduplicate=true",
                )
        except RowError as problem:
            bad.refuse(place, problem)
            continue
        form, first = (form, first) if form is not None else (found, place)
        seen[row["id"]] = place
        row[PLACE] = place
        rows.append(row)
    return form or "text", rows


def without_shared(train: list[Row], validation: list[Row], counts: ReadCounts) -> list[Row]:
    """The training rows whose content isn't held out; the others are counted as duplicates."""
    held_out = {said_hash(row) for row in validation}
    kept = [row for row in train if said_hash(row) not in held_out]
    counts.duplicates += len(train) - len(kept)
    return kept


def checked(raw: object, kind: str | None = None) -> tuple[Form, Row]:
    """One row in canonical form.

    Raises:
        RowError: it's no object, or can't be used.
    """
    if not isinstance(raw, dict):
        raise RowError(f"the row is {_kind_of(raw)}, not an object", mend="make every line a JSON object")
    return canonical(raw, kind)


def located(
    paths: Iterable[Path],
    bad: BadRows,
    counts: ReadCounts,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    alone: bool = True,
) -> Iterator[tuple[str, object]]:
    """(``FILE:LINE``, object) of every row of these files: keys renamed as ``columns`` says (new name -> old
    name), and rows of known dialects in the words of our forms.
    """
    return translated(_raw(paths, bad, counts, options or {}), bad, counts, columns or {}, kind, alone)


def row_count(path: Path, options: Mapping[str, Any] | None = None) -> int:
    """How many rows a file holds, bad ones too where they can be told apart; for progress, not for checks."""
    bad = BadRows(skip=True, limit=2**62)
    if READERS[suffix_of(path)] is read_jsonl:
        return sum(bool(line.strip()) for _, line in lines_of(path, ReadCounts()))
    return sum(1 for _ in _raw([path], bad, ReadCounts(), options or {})) + bad.count


def _raw(
    paths: Iterable[Path], bad: BadRows, counts: ReadCounts, options: Mapping[str, Any]
) -> Iterator[tuple[str, object]]:
    for path in paths:
        counts.files.append(str(path))
        for number, raw in READERS[suffix_of(path)](path, bad, counts, options):
            yield f"{path}:{number}", raw


def _kind_of(value: object) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )
