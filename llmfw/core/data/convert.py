"""Writes rows in canonical form as jsonl or parquet; reading them again gives the same samples."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.columns import refuse_unmet
from llmfw.core.data.formats import PLACE
from llmfw.core.data.module import ConfiguredData, DataModule
from llmfw.core.data.parts import Reading, read_part, tell_apart
from llmfw.core.data.pipeline import held_out_of_all
from llmfw.core.data.reader import BadRows, ReadCounts
from llmfw.core.data.readers.table import STRUCTURES
from llmfw.core.data.report import DataReport
from llmfw.core.data.sources import Source, open_sources
from llmfw.core.data.tool_calls import without_tools
from llmfw.core.data.transforms import Transforms, transform_rows
from llmfw.core.errors import ConflictError, DataError, ResourceError, UsageError
from llmfw.core.records import Row
from llmfw.core.schema import Root

_AS_JSON: Final = STRUCTURES - {"conversation", "conversations", "messages"}
"""Columns whose structures differ from row to row: they're written as JSON."""


def read_all(
    config: Root, tokenizer: Any, transforms: Transforms = (), datamodule: DataModule | None = None
) -> tuple[DataReport, dict[str, list[Row]]]:
    """What ``prepare`` would read, before it's tokenised: the report of the reading, and each split's rows.

    Raises:
        ConflictError: sources of a mixture with different forms: a file has one.
    """
    data = config.data
    source = ConfiguredData(data, tokenizer) if datamodule is None else datamodule
    mixed = bool(data.mix) and isinstance(source, ConfiguredData)
    sources = open_sources(data, tokenizer) if mixed else [Source("", source)]
    report = DataReport(source=source.name())
    bad = BadRows(skip=data.on_bad_row == "skip", limit=data.max_bad_rows)
    counts = ReadCounts()
    reading = Reading(data, bad, counts, report, {} if data.deduplicate else None)
    parts = [read_part(part, reading) for part in sources]
    if mixed:
        parts += held_out_of_all(config, tokenizer, reading)
        refuse_unmet(data.columns, counts)
        for part in parts[1:]:
            if part.form != parts[0].form:
                raise ConflictError(
                    "MIX-FORMS",
                    f"{parts[0].label} has {parts[0].form} rows, {part.label} {part.form} rows",
                    key="data.mix",
                    mend="convert each source by itself: a file has one form",
                )
        report.notes.append("rows of all sources stand one after the other: a file has no weights")
    for part in parts:
        transform_rows(transforms, part.rows, part.form, report, part.label)
    if mixed:
        tell_apart(parts, report)
    report.form = parts[0].form
    report.rows_read, report.rows_skipped = counts.rows, bad.count
    report.duplicates, report.dialects = counts.duplicates, dict(counts.dialects)
    splits = ("train", "validation")
    return report, {split: [row for part in parts for row in part.rows.get(split, [])] for split in splits}


def plain_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows as files hold them: without their places, with ``tools`` beside the messages."""
    return [without_tools({key: value for key, value in row.items() if key != PLACE}) for row in rows]


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write canonical rows to ``path``, whose suffix says how; the file appears when it's complete.

    Raises:
        UsageError: another suffix.
        ResourceError: it can't be written.
    """
    write = writer_of(path)
    with _staged(path) as staged:
        write(plain_rows(rows), staged)


def writer_of(path: Path) -> Callable[[Sequence[Row], Path], None]:
    """What writes files of this suffix.

    Raises:
        UsageError: there is none.
    """
    found = WRITERS.get(path.suffix.lower())
    if found is None:
        raise UsageError(
            "CONVERT-SUFFIX",
            f"rows can't be written as {path.suffix or 'a file without suffix'}",
            file=path,
            key="--out",
            mend=f"end the name in one of: {', '.join(WRITERS)}",
        )
    return found


def _write_jsonl(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            try:
                line = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
            except ValueError as error:
                raise DataError(
                    "CONVERT-NUMBER",
                    f"the row {row['id']} holds a number that is not finite, which JSON can't say",
                    mend="write .parquet, or remove the number",
                ) from error
            handle.write(line + "\n")


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: _column(key, [row.get(key) for row in rows]) for key in keys}
    pq.write_table(pa.table(columns), path)


def _column(key: str, values: list[Any]) -> Any:
    """An arrow array. Structures are JSON where they differ from row to row or call functions."""
    import pyarrow as pa

    said = [value for value in values if value is not None]
    structured = any(isinstance(value, (list, dict)) for value in said)
    loose = key in _AS_JSON or any(_calls(value) or isinstance(value, str) for value in said)
    if structured and loose:
        return pa.array([_as_json(value) for value in values], pa.string())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([_as_json(value) for value in values], pa.string())


def _calls(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) and "tool_calls" in one for one in value)


def _as_json(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to, which becomes ``path`` when the block ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
        os.close(handle)
        staged = Path(name)
        try:
            yield staged
            umask = os.umask(0)
            os.umask(umask)
            staged.chmod(0o666 & ~umask)
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(
            "CONVERT-WRITE",
            f"the file can't be written ({error.strerror or error})",
            file=path,
            mend="check the folder's permissions and the space left",
        ) from error


WRITERS: Final[dict[str, Callable[[Sequence[Row], Path], None]]] = {
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
