"""Plain text: documents separated by blank lines, one a line, or one a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.readers.common import BadRows, ReadCounts, decoded, lines_of
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError

UNITS: Final = ("paragraphs", "lines", "file")


def read_text(
    path: Path, bad: BadRows, counts: ReadCounts, options: Mapping[str, Any]
) -> Iterator[tuple[int, object]]:
    """(line on which it begins, {"text": document}); ``options["text"]`` says what a document is: paragraphs
    (the default: up to the next blank line), lines, or the whole file.

    Raises:
        DataError: another unit is asked for, or a NUL byte shows that it's no text.
    """
    unit = options.get("text", UNITS[0])
    if unit not in UNITS:
        raise DataError(
            "DATA-OPTIONS",
            f"{unit!r} is no unit of text",
            key="data.options.text",
            mend=f"choose one of {', '.join(UNITS)}",
        )
    first, held = 1, ""
    for number, raw in lines_of(path, counts):
        try:
            line = decoded(raw.replace(b"\r\n", b"\n"))
            if "\0" in line:
                raise DataError(
                    "DATA-BINARY", "a NUL byte: this is no text", file=path, line=number, mend="give text"
                )
        except RowError as problem:
            bad.refuse(f"{path}:{number}", problem)
            continue
        blank = not line.strip()
        counts.blank += blank
        if unit == "lines":
            if not blank:
                yield number, {"text": line.rstrip("\n")}
            continue
        if blank and unit == "paragraphs":
            if held:
                yield first, {"text": held.rstrip("\n")}
            held = ""
            continue
        if not held:
            first = number
        held += line
    if held.strip():
        yield first, {"text": held.rstrip("\n")}
