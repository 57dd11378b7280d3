"""What all readers share: bad rows and counts, opening plain and compressed files, files that are something
else, nulls of columns.
"""

from __future__ import annotations

import codecs
import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError

_KEPT_MESSAGES = 20
COMPRESSED: Final = (".gz", ".zst")
"""Suffixes that may follow that of a text format."""


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
    """What reading met: lines of the files, rows kept, blank lines, byte order marks; rows of each dialect
    that was recognised, with how they were read; rows dropped because their content was seen before.
    """

    files: list[str] = field(default_factory=list)
    lines: int = 0
    rows: int = 0
    blank: int = 0
    bom: int = 0
    dialects: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    renamed: set[str] = field(default_factory=set)
    """Names of columns in the files that ``data.columns`` gave another name."""


Reader = Callable[[Path, BadRows, ReadCounts, Mapping[str, Any]], Iterator[tuple[int | str, object]]]
"""(path, bad rows, counts, options) to (line number from 1 or ``row N``, object)."""


def suffix_of(path: Path) -> str:
    """The suffix that names the format: ``.jsonl`` of ``my.jsonl`` and of ``my.jsonl.gz``."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() if last in COMPRESSED else last


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where its name ends in .gz or .zst.

    Raises:
        DataError: it can't be opened.
    """
    try:
        if path.suffix.lower() == ".zst":
            import pyarrow as pa

            return cast(IO[bytes], io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
        if path.suffix.lower() == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the system doesn't let be read."""
    return DataError(
        "DATA-READ",
        f"the file can't be opened ({error.strerror or error})",
        file=path,
        mend="check its path and permissions",
    )


def lines_of(path: Path, counts: ReadCounts) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line with its end) of a text file; its first line is checked and loses its byte
    order mark.
    """
    with open_bytes(path) as handle:
        number = 0
        try:
            for number, line in enumerate(handle, start=1):
                counts.lines += 1
                yield number, without_bom(line, path, counts) if number == 1 else line
        except (OSError, EOFError) as error:  # of unpacking: gzip's and pyarrow's own
            raise not_unpacked(path, error, f" after {number} lines" if number else "") from error


def not_unpacked(path: Path, error: Exception, where: str = "") -> DataError:
    """The error for a packed file that's damaged.

    Raises:
        DataError: it's something else altogether.
    """
    with path.open("rb") as raw:
        refuse_other_files(raw.read(64), path)
    return DataError(
        "DATA-COMPRESSED",
        f"unpacking fails{where} ({' '.join(str(error).split())[:120]})",
        file=path,
        mend="download or pack the file again",
    )


def decoded(line: bytes, what: str = "line") -> str:
    """UTF-8 text of a line.

    Raises:
        RowError: it isn't UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            f"byte {error.start + 1} of the {what} is not UTF-8 (0x{line[error.start]:02x})",
            mend="save the file as UTF-8",
        ) from None


def without_bom(line: bytes, path: Path, counts: ReadCounts) -> bytes:
    """A file's first line without its byte order mark.

    Raises:
        DataError: the file is something else: UTF-16, a git-lfs pointer, a web page, or binary.
    """
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            "DATA-ENCODING",
            "the file is UTF-16",
            file=path,
            mend="convert it to UTF-8 (iconv -f utf-16 -t utf-8)",
        )
    refuse_other_files(line, path)
    if line.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1", b"ARROW1")):
        raise DataError(
            "DATA-BINARY",
            "this is a compressed or binary file",
            file=path,
            mend="unpack it, or give it the suffix of what it is (.jsonl.gz, .jsonl.zst, .parquet, .arrow)",
        )
    if line.startswith(codecs.BOM_UTF8):
        counts.bom += 1
        return line[len(codecs.BOM_UTF8) :]
    return line


def refuse_other_files(start: bytes, path: Path) -> None:
    """Refuse what downloads leave in the place of data."""
    if start.startswith(b"version https://git-lfs"):
        raise DataError(
            "DATA-LFS", "this is a git-lfs pointer, not the data", file=path, line=1, mend="run git lfs pull"
        )
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise DataError(
            "DATA-HTML", "this is a web page, not data", file=path, line=1, mend="download the file itself"
        )


def without_nulls(value: Any) -> Any:
    """A value of a column without the keys that only other rows have: a table gives every row every key."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [without_nulls(part) for part in value]
    return value
