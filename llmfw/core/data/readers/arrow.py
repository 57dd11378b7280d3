"""Columnar files: parquet, read by row groups, and arrow's own (stream or file)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmfw.core.data.readers.common import BadRows, ReadCounts, refuse_other_files, unreadable, without_nulls
from llmfw.core.data.readers.table import (
    MAY_BE_MESSAGES,
    NUMBERS,
    STRUCTURES,
    messages_or_text,
    steps_or_text,
    structure,
)
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError

_ROWS_AT_ONCE = 256


def read_parquet(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, object]]:
    """(``row N``, row) of a parquet file; a row group is in memory at a time.

    Raises:
        DataError: no parquet, or one that's cut off.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_start(path, b"PAR1", "parquet")
    try:
        with pq.ParquetFile(path) as file:
            yield from rows_of(file.iter_batches(batch_size=_ROWS_AT_ONCE), bad, str(path))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "parquet", error) from error


def read_arrow(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, object]]:
    """(``row N``, row) of an arrow file or stream.

    Raises:
        DataError: no arrow, or one that's cut off.
    """
    import pyarrow as pa

    start = _start(path)
    try:
        with pa.memory_map(str(path)) as source:
            if start.startswith(b"ARROW1"):
                file = pa.ipc.open_file(source)
                batches: Any = (file.get_batch(index) for index in range(file.num_record_batches))
            else:
                batches = pa.ipc.open_stream(source)
            yield from rows_of(batches, bad, str(path))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "arrow", error) from error


def rows_of(batches: Any, bad: BadRows, name: str) -> Iterator[tuple[str, object]]:
    """(``row N``, row) of record batches, without the nulls inside structures."""
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            for raw in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                number += 1
                try:
                    row = cleaned(raw)
                except RowError as problem:
                    bad.refuse(f"{name}:row {number}", problem)
                    continue
                yield f"row {number}", row


def cleaned(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A table's row: structures given as strings are JSON, structures of lists become lists of structures,
    nulls inside structures are left out; NaN is null, but not as a ``reward``.

    Raises:
        RowError: a string that must be JSON and isn't.
    """
    row: dict[str, Any] = {}
    for key, value in raw.items():
        if key in STRUCTURES and isinstance(value, str):
            row[key] = structure(value, key)
        elif key in MAY_BE_MESSAGES and isinstance(value, str):
            row[key] = messages_or_text(value)
        elif key == "solution" and isinstance(value, str):
            row[key] = steps_or_text(value)
        elif key in STRUCTURES and isinstance(value, dict) and _of_lists(value):
            names = list(value)
            row[key] = without_nulls([dict(zip(names, parts)) for parts in zip(*value.values())])
        elif isinstance(value, float) and math.isnan(value) and key not in NUMBERS:
            row[key] = None  # pandas' way to write that there is none
        else:
            row[key] = without_nulls(value)
    return row


def _of_lists(value: Mapping[str, Any]) -> bool:
    """Whether a structure holds lists of one length: ``datasets``' older form of a list of structures."""
    lists = [part for part in value.values() if isinstance(part, list)]
    return bool(lists) and len(lists) == len(value) and len({len(part) for part in lists}) == 1


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            start = handle.read(64)
    except OSError as error:
        raise unreadable(path, error) from error
    refuse_other_files(start, path)
    return start


def _check_start(path: Path, magic: bytes, kind: str) -> None:
    start = _start(path)
    if not start.startswith(magic):
        raise DataError(
            f"DATA-{kind.upper()}",
            f"this is no {kind} file" + ("; it is empty" if not start else ""),
            file=path,
            mend="give the file the suffix of what it is, or download it again",
        )
    with path.open("rb") as handle:
        handle.seek(-len(magic), 2)
        if handle.read() != magic:
            raise DataError(
                f"DATA-{kind.upper()}",
                f"the {kind} file is cut off: its end is missing",
                file=path,
                mend="download or write it again",
            )


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    return DataError(
        f"DATA-{kind.upper()}",
        f"the {kind} file can't be read ({' '.join(str(error).split())[:160]})",
        file=path,
        mend="download or write it again",
    )
