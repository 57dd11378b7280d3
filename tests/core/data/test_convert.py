"""What is written is what was read: the same samples come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data.convert import plain_rows, write_rows
from llmfw.core.data.reader import BadRows, ReadCounts, read_rows
from llmfw.core.errors import DataError, ResourceError, UsageError

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": None}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"default": None}}}
ASKED = [{"role": "user", "content": "a"}]
KINDS: dict[str, list[dict[str, Any]]] = {
    "completion": [
        {"prompt": "a", "completion": "b", "reward": 0.5, "extra": {"w": 1}},
        {"prompt": ASKED, "completion": "c", "id": "mine", "note": {"x": [1, None]}},
        {"prompt": "c", "completion": "d", "spans": [[0, 1]], "n": 3},
    ],
    "preference": [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {
            "prompt": ASKED,
            "chosen": [{"role": "assistant", "tool_calls": [CALL]}],
            "rejected": [{"role": "assistant", "content": "x"}],
            "tools": [TOOL],
        },
    ],
    "messages": [
        {"messages": [*ASKED, {"role": "assistant", "content": "b", "loss": True}]},
        {"messages": [*ASKED, {"role": "assistant", "tool_calls": [CALL]}], "tools": [TOOL]},
    ],
    "text": [{"text": "a\nb"}, {"text": "[1]", "spans": [[0, 1]]}],
    "problems": [
        {"prompt": "a", "answer": "b", "solution": ["c", "d"], "level": 1, "tests": ["x"], "meta": {"k": 1}},
        {"prompt": "b", "answer": "c", "solution": "d"},
    ],
}


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_back_as_they_were(kind: str, suffix: str, tmp_path: Path) -> None:
    form, rows = read_rows([_write(tmp_path / "a.jsonl", KINDS[kind])], BadRows(), ReadCounts())
    write_rows(rows, tmp_path / f"b{suffix}")
    again = read_rows([tmp_path / f"b{suffix}"], BadRows(), ReadCounts())
    assert again[0] == form == kind
    said = [{key: value for key, value in row.items() if key not in ("_at", "note")} for row in rows]
    assert [{key: row[key] for key in row if key not in ("_at", "note")} for row in again[1]] == said


def test_tools_stand_beside_the_messages(tmp_path: Path) -> None:
    _, rows = read_rows([_write(tmp_path / "a.jsonl", KINDS["messages"][1:])], BadRows(), ReadCounts())
    (plain,) = plain_rows(rows)
    assert plain["tools"] == [TOOL] and "_at" not in plain and "tools" not in plain["messages"][0]


def test_a_number_that_json_cannot_say_is_refused(tmp_path: Path) -> None:
    row = {"text": "a", "id": "x", "score": float("inf")}
    with pytest.raises(DataError, match="the row x holds a number that is not finite"):
        write_rows([row], tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
    write_rows([row], tmp_path / "a.parquet")


def test_other_suffixes_are_refused_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"rows can't be written as \.csv; end the name in one of: \.jsonl"):
        write_rows([], tmp_path / "a.csv")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        write_rows([{"text": "a", "id": "x"}], tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
