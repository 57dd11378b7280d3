"""Plain text in documents, and packed files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from llmfw.core.data.reader import BadRows, ReadCounts, located, read_rows
from llmfw.core.errors import DataError

TEXT = "\n\nFirst line,\nsecond.\n\n \nThird.\r\n"


@pytest.mark.parametrize(
    ("unit", "documents"),
    [
        ("paragraphs", {"3": "First line,\nsecond.", "7": "Third."}),
        ("lines", {"3": "First line,", "4": "second.", "7": "Third."}),
        ("file", {"1": "\n\nFirst line,\nsecond.\n\n \nThird."}),
    ],
)
def test_documents_are_paragraphs_lines_or_the_file(
    unit: str, documents: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    found = list(located([path], BadRows(), ReadCounts(), {"text": unit}))
    assert found == [(f"{path}:{line}", {"text": text}) for line, text in documents.items()]


def test_paragraphs_are_the_default_and_other_units_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(TEXT.encode())
    assert len(list(located([path], BadRows(), ReadCounts()))) == 2
    with pytest.raises(DataError, match="'words' is no unit of text; choose one of paragraphs, lines, file"):
        list(located([path], BadRows(), ReadCounts(), {"text": "words"}))


def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n\nb\xff\n")
    with pytest.raises(DataError, match=r"a.txt:3: byte 2 of the line is not UTF-8"):
        read_rows([path], BadRows(), ReadCounts())
    path.write_bytes(b"a\nb\0c\n")
    with pytest.raises(DataError, match=r"a.txt:2: a NUL byte"):
        read_rows([path], BadRows(), ReadCounts())


def test_packed_files_are_unpacked_and_keep_their_line_numbers(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in "abc").encode()
    packed = {
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": pa.compress(lines, codec="zstd", asbytes=True),
        "a.json.gz": gzip.compress(b'[{"text": "a"},\n{"text": "b"},\n{"text": "c"}]'),
        "a.csv.gz": gzip.compress(b"text\na\nb\nc\n"),
    }
    for name, content in packed.items():
        path = tmp_path / name
        path.write_bytes(content)
        _, rows = read_rows([path], BadRows(), ReadCounts())
        assert [row["text"] for row in rows] == ["a", "b", "c"]
        assert rows[2]["_at"] == f"{path}:{4 if 'csv' in name else 3}"


def test_a_packed_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    with pytest.raises(
        DataError, match=r"DATA-COMPRESSED.* a.jsonl.gz|DATA-COMPRESSED.*a.jsonl.gz: unpacking"
    ):
        list(located([path], BadRows(), ReadCounts()))
