"""Reads data files; every bad row is named by file, line and key.

A file's suffix chooses its reader (``READERS``); a reader yields (line or row number, object) and the rest is
shared.
"""

from __future__ import annotations

import codecs
import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.formats import PLACE, Form, RowError, canonical
from llmfw.core.errors import DataError
from llmfw.core.records import Row

_KEPT_MESSAGES = 20


@dataclass
class BadRows:
    """What happens to rows that can't be used: the first is an error, or they're skipped and counted up to
    ``limit``.
    """

    skip: bool = False
    limit: int = 100
    count: int = 0
    messages: list[str] = field(default_factory=list)

    def add(self, error: DataError) -> None:
        """Raise ``error``, or note it as a skipped row; beyond the limit the last one is raised."""
        if not self.skip:
            raise error
        self.count += 1
        if len(self.messages) < _KEPT_MESSAGES:
            self.messages.append(str(error))
        if self.count > self.limit:
            raise DataError(
                "BAD-ROWS",
                f"more than {self.limit} rows can't be used; the last: {error}",
                mend="mend the file, or raise data.max_bad_rows",
            ) from error

    def refuse(self, place: str | None, problem: RowError) -> None:
        """``add`` a row's problem at its place."""
        if self.skip:
            mend = problem.mend
        else:
            mend = f"{problem.mend} (or set data.on_bad_row=skip)"
        self.add(DataError("BAD-ROW", problem.what, file=place, key=problem.key, mend=mend))


@dataclass
class ReadCounts:
    """What reading met: lines of the files, rows kept, blank lines, byte order marks."""

    files: list[str] = field(default_factory=list)
    lines: int = 0
    rows: int = 0
    blank: int = 0
    bom: int = 0


def read_rows(
    paths: Iterable[Path], bad: BadRows, counts: ReadCounts, kind: str | None = None
) -> tuple[Form, list[Row]]:
    """The checked rows of these files and their one form.

    Raises:
        DataError: a file that can't be read, a bad row (by policy), or no rows at all.
    """
    paths = list(paths)
    rows = check_rows(located(paths, bad, counts), bad, kind)
    counts.rows += len(rows[1])
    if not rows[1]:
        where = paths[0] if len(paths) == 1 else None
        left = f"; {bad.count} were skipped, the first: {bad.messages[0]}" if bad.count else ""
        raise DataError(
            "NO-ROWS", f"there are no rows in it{left}", file=where, mend="give a file with at least one row"
        )
    return rows


def check_rows(
    located: Iterable[tuple[str, object]], bad: BadRows, kind: str | None = None
) -> tuple[Form, list[Row]]:
    """Rows in canonical form, all of one form and with unique ids, from (place, object); bad ones go to
    ``bad``.
    """
    form: Form | None = None
    first = ""
    seen: dict[str, str] = {}
    rows: list[Row] = []
    for place, raw in located:
        try:
            if not isinstance(raw, dict):
                raise RowError(
                    f"the row is {_kind_of(raw)}, not an object", mend="make every line a JSON object"
                )
            found, row = canonical(raw, kind)
            if form is not None and found != form:
                raise RowError(
                    f"this is a {found} row, but {first} is a {form} row",
                    mend="keep one form a file, or set data.kind",
                )
            if row["id"] in seen:
                given = "id" if raw.get("id") is not None else None
                what = f"the id {row['id']} occurs twice" if given else "the same content occurs twice"
                raise RowError(
                    f"{what}, first at {seen[row['id']]}",
                    key=given,
                    mend="remove one of them" + (" or rename it" if given else ""),
                )
        except RowError as problem:
            bad.refuse(place, problem)
            continue
        form, first = (form, first) if form is not None else (found, place)
        seen[row["id"]] = place
        row[PLACE] = place
        rows.append(row)
    return form or "text", rows


def data_files(name: str) -> tuple[list[Path], list[Path]]:
    """The (train, validation) files that a file or folder name means.

    A folder holds ``train.SUFFIX`` and perhaps ``validation.SUFFIX``; without these names all its data files
    are training rows.

    Raises:
        DataError: nothing there, or of no known kind.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in READERS and file.is_file())
        train = [file for file in files if file.stem == "train"]
        held_out = [file for file in files if file.stem in ("validation", "valid", "dev")]
        if not files:
            raise DataError(
                "NO-DATA",
                "the folder holds no data file",
                file=path,
                mend=f"put a file into it ({_suffixes()})",
            )
        return train or [file for file in files if file not in held_out], held_out
    if not path.exists():
        around = (
            [str(path.with_name(other.name)) for other in path.parent.iterdir()]
            if path.parent.is_dir()
            else []
        )
        near = difflib.get_close_matches(str(path), around, 1)
        raise DataError(
            "NO-DATA",
            "there is no such file" + (f"; near it: {near[0]}" if near else ""),
            file=path,
            mend="give a file, a folder or a preset as data.name",
        )
    if path.suffix not in READERS:
        raise DataError(
            "DATA-SUFFIX",
            f"files of kind {path.suffix or '(no suffix)'} can't be read",
            file=path,
            mend=f"convert it ({_suffixes()})",
        )
    return [path], []


def read_jsonl(path: Path, bad: BadRows, counts: ReadCounts) -> Iterator[tuple[int, object]]:
    """(line number from 1, object) of a file with one JSON object a line; blank lines are counted and passed
    over.
    """
    try:
        handle = path.open("rb")
    except OSError as error:
        raise DataError(
            "DATA-READ",
            f"the file can't be opened ({error.strerror})",
            file=path,
            mend="check its path and permissions",
        ) from error
    with handle:
        for number, line in enumerate(handle, start=1):
            counts.lines += 1
            if number == 1:
                line = _without_bom(line, path, counts)
            if not line.strip():
                counts.blank += 1
                continue
            try:
                yield number, _parse(line)
            except RowError as problem:
                bad.refuse(f"{path}:{number}", problem)


READERS: Final[dict[str, Callable[[Path, BadRows, ReadCounts], Iterator[tuple[int, object]]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
}


def _suffixes() -> str:
    return ", ".join(READERS)


def located(paths: Iterable[Path], bad: BadRows, counts: ReadCounts) -> Iterator[tuple[str, object]]:
    """(``FILE:LINE``, object) of every row of these files."""
    for path in paths:
        counts.files.append(str(path))
        for number, raw in READERS[path.suffix](path, bad, counts):
            yield f"{path}:{number}", raw


def _without_bom(line: bytes, path: Path, counts: ReadCounts) -> bytes:
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            "DATA-ENCODING",
            "the file is UTF-16",
            file=path,
            mend="convert it to UTF-8 (iconv -f utf-16 -t utf-8)",
        )
    if line.startswith(b"version https://git-lfs"):
        raise DataError(
            "DATA-LFS", "this is a git-lfs pointer, not the data", file=path, line=1, mend="run git lfs pull"
        )
    if line.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise DataError(
            "DATA-HTML", "this is a web page, not data", file=path, line=1, mend="download the file itself"
        )
    if line.startswith((b"\x1f\x8b", b"PK\x03\x04", b"PAR1")):
        raise DataError(
            "DATA-BINARY",
            "this is a compressed or binary file",
            file=path,
            mend="unpack or convert it to jsonl",
        )
    if line.startswith(codecs.BOM_UTF8):
        counts.bom += 1
        return line[len(codecs.BOM_UTF8) :]
    return line


def _parse(line: bytes) -> object:
    try:
        text = line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            f"byte {error.start + 1} of the line is not UTF-8 (0x{line[error.start]:02x})",
            mend="save the file as UTF-8",
        ) from None
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        said = error.msg.removesuffix(" at")
        hint = (
            "put each object on one line of its own"
            if text.strip() in ("{", "[") or text.lstrip().startswith("[")
            else "mend the line"
        )
        raise RowError(f"not JSON: {said[:1].lower()}{said[1:]} at column {error.colno}", mend=hint) from None
    except RecursionError:
        raise RowError("the object is nested too deeply", mend="flatten it") from None
    except ValueError as error:  # e.g. an integer of more digits than python converts
        raise RowError(f"not JSON: {error}", mend="mend the line") from None


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


def _kind_of(value: object) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )
