"""Parquet and arrow: nulls of columns, structures, and files that are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmfw.core.data.reader import BadRows, ReadCounts, read_rows
from llmfw.core.errors import DataError

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def _rows(path: Path, **changes: Any) -> list[dict[str, Any]]:
    return read_rows([path], BadRows(**changes), ReadCounts())[1]


def _parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_rows_of_all_row_groups_are_named_by_number(tmp_path: Path) -> None:
    asked = [f"{number}?" for number in range(700)]
    path = _parquet(tmp_path / "a.parquet", {"prompt": asked, "completion": asked}, row_group_size=300)
    rows = _rows(path)
    assert [row["prompt"] for row in rows] == asked
    assert rows[699]["_at"] == f"{path}:row 700"


def test_keys_that_only_other_rows_have_are_left_out(tmp_path: Path) -> None:
    """Arrow gives every message every key: ``loss`` is null where a message doesn't say it."""
    turns = [[*TURNS[:1], {**TURNS[1], "loss": True}], TURNS]
    path = _parquet(tmp_path / "a.parquet", {"messages": turns, "id": ["x", None]})
    rows = _rows(path)
    assert rows[0]["messages"] == turns[0] and rows[1]["messages"] == TURNS
    assert rows[0]["id"] == "x" and len(rows[1]["id"]) == 16


def test_structures_may_be_json_or_a_structure_of_lists(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", {"messages": [json.dumps(TURNS)]})
    assert _rows(path)[0]["messages"] == TURNS
    lists = {"role": ["user", "assistant"], "content": ["a", "b"]}
    path = _parquet(tmp_path / "b.parquet", {"messages": [lists]})
    assert _rows(path)[0]["messages"] == TURNS


def test_nan_is_no_value_but_as_a_reward_it_is_refused(tmp_path: Path) -> None:
    nan = float("nan")
    path = _parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "score": [1.5, nan]})
    assert [row.get("score") for row in _rows(path)] == [1.5, None]
    path = _parquet(tmp_path / "b.parquet", {"text": ["a"], "reward": [nan]})
    with pytest.raises(DataError, match=r"b.parquet:row 1:reward: nan is not finite"):
        _rows(path)


def test_a_null_answer_is_named_by_row_and_key(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", {"prompt": ["a", "b"], "completion": ["c", None]})
    with pytest.raises(DataError, match=r"a.parquet:row 2:completion: .*missing or null"):
        _rows(path)
    assert len(_rows(path, skip=True)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
def test_arrow_files_and_streams_are_read(stream: bool, tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"]})
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink:
        writer = (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema)
        writer.write_table(table)
        writer.close()
    assert [row["text"] for row in _rows(path)] == ["a", "b"]


def test_a_file_that_is_cut_off_or_something_else_is_recognised(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", {"text": ["a"] * 50})
    whole = path.read_bytes()
    contents = {
        whole[: len(whole) // 2]: "the parquet file is cut off: its end is missing",
        b"": "this is no parquet file; it is empty",
        b'{"text": "a"}\n': "this is no parquet file",
        b"version https://git-lfs.github.com/spec/v1\n": "git-lfs pointer",
        b"<!DOCTYPE html>": "a web page",
        whole[:4] + b"\0" * 40 + whole[-4:]: "the parquet file can't be read",
    }
    for content, said in contents.items():
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            _rows(path)
        assert said in str(caught.value) and str(path) in str(caught.value)
