"""Tables: header, quoting, empty cells, cells with JSON, and errors by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data.reader import BadRows, ReadCounts, located, read_rows
from llmfw.core.errors import DataError


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def _places(path: Path, options: dict[str, Any] | None = None) -> list[tuple[str, Any]]:
    return [
        (place.removeprefix(f"{path}:"), row)
        for place, row in located([path], BadRows(), ReadCounts(), options)
    ]


def test_a_quoted_field_may_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.csv",
        '\ufeffprompt,completion\r\n"a, ""b""\nc",d\r\n\r\ne,f\r\n',
    )
    counts = ReadCounts()
    rows = list(located([path], BadRows(), counts))
    assert rows == [
        (f"{path}:2", {"prompt": 'a, "b"\nc', "completion": "d"}),
        (f"{path}:5", {"prompt": "e", "completion": "f"}),
    ]
    assert (counts.bom, counts.blank, counts.lines) == (1, 1, 5)


def test_tabs_and_other_delimiters(tmp_path: Path) -> None:
    row = {"prompt": "a,b", "completion": "c"}
    assert _places(_write(tmp_path / "a.tsv", "prompt\tcompletion\na,b\tc\n")) == [("2", row)]
    semicolons = _write(tmp_path / "a.csv", "prompt;completion\na,b;c\n")
    assert _places(semicolons, {"delimiter": ";"}) == [("2", row)]
    with pytest.raises(DataError, match=r'a.csv:1: .* semicolons in it; set data.options.delimiter=";"'):
        _places(semicolons)
    with pytest.raises(DataError, match="'ab' is no delimiter"):
        _places(semicolons, {"delimiter": "ab"})


def test_numbers_stay_text_unless_the_form_wants_numbers(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "prompt,completion,reward,id\n1,2.50,0.5,007\n")
    _, rows = read_rows([path], BadRows(), ReadCounts())
    assert {key: rows[0][key] for key in ("prompt", "completion", "reward", "id")} == {
        "prompt": "1",
        "completion": "2.50",
        "reward": 0.5,
        "id": "007",
    }


def test_an_empty_cell_is_no_value(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "prompt,answer,solution,level\na,b,,\n")
    form, rows = read_rows([path], BadRows(), ReadCounts())
    assert form == "problems" and not {"solution", "level"} & rows[0].keys()
    path = _write(tmp_path / "b.csv", "prompt,completion\na,\n")
    with pytest.raises(DataError, match=r"b.csv:2:completion: .*missing or null"):
        read_rows([path], BadRows(), ReadCounts())


def test_cells_of_messages_are_json(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    cell = json.dumps(turns).replace('"', '""')
    path = _write(tmp_path / "a.csv", f'messages,n\n"{cell}",1\n')
    _, rows = read_rows([path], BadRows(), ReadCounts())
    assert rows[0]["messages"] == turns
    path = _write(tmp_path / "b.csv", f'prompt,completion\n"{cell[: cell.index("}") + 1]}]",[1] is a list\n')
    _, rows = read_rows([path], BadRows(), ReadCounts())
    assert rows[0]["prompt"] == turns[:1] and rows[0]["completion"] == "[1] is a list"


BAD = {
    "fields": ("prompt,completion\na,b\nc,d,e\n", ":3: the row has 3 fields, the header 2"),
    "messages": ("messages\n[{]\n", ":2:messages: the cell is not JSON"),
    "reward": ("prompt,completion,reward\na,b,high\n", ":2:reward: 'high' is no number"),
    "quoting": ('prompt,completion\n"a"b,c\n', ":2: the quoting is broken"),
    "open quote": ('prompt,completion\na,"b\nc,d\n', ":2: a quote is opened and never closed"),
    "twice": ("prompt,prompt\na,b\n", ":1: the header is not usable: the column prompt occurs twice"),
    "no name": ("prompt,\na,b\n", ":1: the header is not usable: column 2 has no name"),
    "header": ("a,b\nc,d\n", ":2: unknown form: the keys are a, b"),
    "only header": ("prompt,completion\n", "there are no rows in it"),
    "empty": ("", "there are no rows in it"),
    "page": ("<html>", "a web page"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_named_by_its_line(case: str, tmp_path: Path) -> None:
    content, said = BAD[case]
    path = _write(tmp_path / "a.csv", content)
    with pytest.raises(DataError) as caught:
        read_rows([path], BadRows(), ReadCounts())
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_record_with_too_many_fields_can_be_skipped(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "prompt,completion\na,b,c\nd,e\n")
    bad = BadRows(skip=True)
    _, rows = read_rows([path], bad, ReadCounts())
    assert [row["prompt"] for row in rows] == ["d"] and bad.count == 1


def test_text_that_is_not_utf_8_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,completion\na,\xff\n")
    with pytest.raises(DataError, match=r"a.csv:2: byte 3 of the line is not UTF-8 .0xff"):
        read_rows([path], BadRows(), ReadCounts())
