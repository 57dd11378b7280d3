"""JSON arrays: rows by line, broken files by line and column, and .json that is one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data.reader import BadRows, ReadCounts, located, read_rows
from llmfw.core.errors import DataError

ROWS = [{"prompt": f"{number}+1?", "completion": str(number + 1)} for number in range(3)]


def _places(path: Path, options: dict[str, Any] | None = None) -> list[tuple[str, Any]]:
    return [
        (place.removeprefix(f"{path}:"), row)
        for place, row in located([path], BadRows(), ReadCounts(), options)
    ]


def test_rows_are_named_by_the_line_on_which_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS, indent=2))
    assert _places(path) == [("2", ROWS[0]), ("6", ROWS[1]), ("10", ROWS[2])]


def test_an_object_with_one_array_of_rows_is_that_array(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"version": [1, 2],\n "data": [' + ",\n".join(map(json.dumps, ROWS)) + "]}")
    assert [row for _, row in _places(path)] == ROWS and [place for place, _ in _places(path)] == [
        "2",
        "3",
        "4",
    ]


def test_of_several_arrays_one_is_named_by_an_option(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": ROWS[:2], "test": ROWS[2:]}))
    with pytest.raises(
        DataError, match=r"several arrays of rows: train, test; name one: data.options.rows=train"
    ):
        _places(path)
    assert [row for _, row in _places(path, {"rows": "test"})] == ROWS[2:]
    with pytest.raises(
        DataError, match=r"data.options.rows: it holds no array of rows named x .keys: train, test"
    ):
        _places(path, {"rows": "x"})


def test_a_json_file_with_one_object_a_line_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert [place for place, _ in _places(path)] == ["1", "2", "3"]


BROKEN = {
    "cut": ('[{"prompt": "a",\n "completion": "b"}', ":2: not JSON: expecting ',' or the end of the array"),
    "cut inside": ('[\n{"prompt": "a', ":2: not JSON: unterminated string starting at column 12"),
    "comma": (
        '[{"text": "a"}\n{"text": "b"}]',
        ":2: not JSON: expecting ',' or the end of the array at column 1",
    ),
    "one object": (
        '{"prompt": "a", "completion": "b"}',
        "it is one object without an array of rows (keys: prompt",
    ),
    "columns": ('{"prompt": {"0": "a"}}', "it is one object without an array of rows"),
    "string": ('"hello"', "it holds neither an array nor an object"),
    "empty": ("", "it is empty"),
    "page": ("<!DOCTYPE html>", "this is a web page"),
    "lfs": ("version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_by_line_and_column(case: str, tmp_path: Path) -> None:
    content, said = BROKEN[case]
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_rows([path], BadRows(), ReadCounts())
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_row_that_can_be_told_but_not_used_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        '[{"prompt": "a", "completion": "b"},\n{"prompt": "c", "completion": "d", "level": NaN},\n7]'
    )
    bad = BadRows(skip=True)
    _, rows = read_rows([path], bad, ReadCounts())
    assert len(rows) == 1 and bad.count == 2
    assert f"{path}:2: NaN is not a JSON number" in bad.messages[0]
    assert f"{path}:3: the row is a number" in bad.messages[1]
