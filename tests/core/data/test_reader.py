"""Every bad row is named by file, line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data.reader import (
    BadRows,
    ReadCounts,
    check_rows,
    data_files,
    located,
    read_rows,
    without_shared,
)
from llmfw.core.errors import DataError

GOOD = {"prompt": "2+2?", "completion": "4"}
PAIR = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
TURNS = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


def _write(path: Path, *lines: object) -> Path:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def _read(
    path: Path, *, skip: bool = False, limit: int = 100, kind: str | None = None
) -> tuple[Any, BadRows, ReadCounts]:
    bad, counts = BadRows(skip=skip, limit=limit), ReadCounts()
    return read_rows([path], bad, counts, kind), bad, counts


def test_a_broken_line_1042_is_named_and_its_exit_code_is_3(tmp_path: Path) -> None:
    lines: list[object] = [{**GOOD, "prompt": f"{number}?"} for number in range(1, 1101)]
    lines[1041] = b'{"prompt": "x", "completion": "y'
    path = _write(tmp_path / "my.jsonl", *lines)
    with pytest.raises(DataError) as caught:
        _read(path)
    assert str(caught.value).startswith(f"error[BAD-ROW] {path}:1042: not JSON: unterminated string")
    assert caught.value.exit_code == 3
    (_, rows), bad, counts = _read(path, skip=True)
    assert (len(rows), bad.count, counts.lines) == (1099, 1, 1100)
    assert f"{path}:1042" in bad.messages[0]


BAD: dict[str, tuple[object, str]] = {
    "NaN": (b'{"prompt": "a", "completion": "b", "level": NaN}', "NaN is not a JSON number"),
    "infinity": (b'{"prompt": "a", "completion": "b", "level": -Infinity}', "-Infinity is not a JSON number"),
    "overflow": (b'{"prompt": "a", "completion": "b", "level": 1e999}', "1e999 is beyond the range"),
    "utf-8": (b'{"prompt": "a\xff", "completion": "b"}', "byte 14 of the line is not UTF-8 (0xff)"),
    "list": ([1, 2], "the row is a list, not an object"),
    "string": ("hello", "the row is a string, not an object"),
    "number": (b"17", "the row is a number"),
    "null": (b"null", "the row is null"),
    "twice": (b'{"prompt": "a", "prompt": "b", "completion": "c"}', ":prompt: the key occurs twice"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "surrogate": (
        b'{"prompt": "a\\ud800", "completion": "b"}',
        ":prompt: character 1 is half a surrogate pair (\\ud800)",
    ),
    "digits": (b'{"prompt": "a", "completion": "b", "level": ' + b"9" * 5000 + b"}", "not JSON"),
    "prompt missing": ({"completion": "b"}, ":prompt: the key is missing"),
    "prompt type": (
        {"prompt": 3, "completion": "b"},
        ":prompt: expected a non-empty list of messages, got 3",
    ),
    "empty prompt": ({"prompt": " ", "completion": "b"}, ":prompt: the string is empty"),
    "empty answer": ({"prompt": "a", "completion": "\n"}, ":completion: the answer is empty"),
    "no answer": (
        {"prompt": "a", "completion": [{"role": "user", "content": "b"}]},
        ":completion: the answer is empty: no message",
    ),
    "half a pair": ({"prompt": "a", "chosen": "b"}, ":rejected: the key is missing"),
    "equal": ({**PAIR, "rejected": "4 "}, ":rejected: chosen and rejected are equal"),
    "mixed pair": ({**PAIR, "rejected": TURNS}, ":rejected: chosen and rejected are of different types"),
    "no shared prompt": ({"chosen": TURNS, "rejected": TURNS[1:]}, ":prompt: there is no prompt"),
    "prompt's end": ({"prompt": TURNS, "completion": "b"}, ":prompt: the prompt ends with the assistant"),
    "role": ({"messages": [{"role": "human", "content": "a"}]}, ':messages[0].role: the role is "human"'),
    "late system": (
        {"messages": [*TURNS, {"role": "system", "content": "a"}]},
        ":messages[2].role: a system message stands after",
    ),
    "content": (
        {"messages": [{"role": "user", "content": ["a"]}]},
        ":messages[0].content: expected a string",
    ),
    "loss flag": (
        {"messages": [{**TURNS[0], "loss": 1}]},
        ":messages[0].loss: expected true or false, got 1",
    ),
    "nothing trained": ({"messages": TURNS[:1]}, ":messages: no message is trained"),
    "span": ({"messages": [{**TURNS[1], "spans": [[0, 9]]}]}, ":messages[0].spans[0]: [0, 9] doesn't lie"),
    "span order": ({"text": "abcdef", "spans": [[2, 4], [3, 5]]}, ":spans[1]: [3, 5] doesn't lie in order"),
    "span type": ({"text": "abcdef", "spans": [[0.5, 4]]}, ":spans[0]: expected [start, end] in characters"),
    "text type": ({"text": None}, ":text: expected a string, got missing or null"),
    "answer": ({"prompt": "a", "answer": ""}, ":answer: the string is empty"),
    "solution": (
        {"prompt": "a", "answer": "b", "solution": ["x", 3]},
        ":solution[1]: expected a string, got 3",
    ),
    "reward": ({**GOOD, "reward": "high"}, ":reward: expected a number"),
    "id": ({**GOOD, "id": True}, ":id: expected a string or an integer"),
    "extra": ({**GOOD, "extra": {"w": "x"}}, ":extra.w: expected a number"),
    "unknown": (
        {"promt": "a", "completon": "b"},
        "promt (did you mean prompt?), completon (did you mean completion?)",
    ),
    "forms": ({**PAIR, "text": "b"}, "the keys chosen, rejected, text belong to different forms"),
    "another form": ({"text": "b"}, "this is a text row, but"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_refused_at_its_line_and_can_be_skipped(case: str, tmp_path: Path) -> None:
    row, said = BAD[case]
    path = _write(tmp_path / "my.jsonl", GOOD, row, {**GOOD, "prompt": "3+3?"})
    with pytest.raises(DataError) as caught:
        _read(path)
    assert f"{path}:2" in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value) and "data.on_bad_row=skip" in str(caught.value)
    (form, rows), bad, _ = _read(path, skip=True)
    assert (form, len(rows), bad.count) == ("completion", 2, 1)


def test_skipping_stops_beyond_its_cap(tmp_path: Path) -> None:
    path = _write(tmp_path / "my.jsonl", GOOD, *[b"x"] * 4)
    with pytest.raises(DataError, match=r"BAD-ROWS.* more than 3 rows .*my\.jsonl:5"):
        _read(path, skip=True, limit=3)
    assert _read(path, skip=True, limit=4)[1].count == 4


def test_two_rows_of_one_id_or_one_content_are_named_with_both_lines(tmp_path: Path) -> None:
    path = _write(tmp_path / "my.jsonl", {**GOOD, "id": 7}, {**GOOD, "id": "7"})
    with pytest.raises(DataError, match=rf"{path}:2:id: the id 7 occurs twice, first at {path}:1"):
        _read(path)
    path = _write(tmp_path / "my.jsonl", GOOD, PAIR and dict(reversed(GOOD.items())))
    with pytest.raises(DataError, match=rf"{path}:2: the same content occurs twice, first at {path}:1"):
        _read(path)


def test_blank_lines_and_a_byte_order_mark_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps(GOOD).encode()
        + b"\r\n\r\n   \n"
        + json.dumps({**GOOD, "prompt": "x"}).encode()
    )
    (_, rows), _, counts = _read(path)
    assert [row["prompt"] for row in rows] == ["2+2?", "x"]
    assert (counts.blank, counts.bom, counts.lines, counts.rows) == (2, 1, 4, 2)
    assert rows[1]["_at"] == f"{path}:4"


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "there are no rows in it"),
    "blank": (b"\n\n", "there are no rows in it"),
    "utf-16": ("\ufeff{}".encode("utf-16-le"), "the file is UTF-16"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
    "page": (b"<!DOCTYPE html>\n<html>", "a web page"),
    "gzip": (b"\x1f\x8b\x08\x00", "compressed or binary"),
    "array": (b'[\n{"prompt": "a"}\n]', "put each object on one line"),
    "pretty": (b'{\n  "prompt": "a"\n}', "put each object on one line"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_jsonl_is_refused_by_name(case: str, tmp_path: Path) -> None:
    content, said = FILES[case]
    path = tmp_path / "my.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        _read(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_answered_with_a_near_name(tmp_path: Path) -> None:
    _write(tmp_path / "pairs.jsonl", PAIR)
    with pytest.raises(DataError, match=r"there is no such file; near it: .*pairs\.jsonl"):
        data_files(str(tmp_path / "pair.jsonl"))
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(DataError, match=r"files of kind \.xlsx can't be read; convert it \(\.jsonl"):
        data_files(str(tmp_path / "x.xlsx"))
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="the folder holds no data file"):
        data_files(str(tmp_path / "sub"))


def test_a_folder_gives_its_train_and_validation_files(tmp_path: Path) -> None:
    for name in ("train", "validation", "notes"):
        _write(tmp_path / f"{name}.jsonl", PAIR)
    assert data_files(str(tmp_path)) == ([tmp_path / "train.jsonl"], [tmp_path / "validation.jsonl"])
    (tmp_path / "train.jsonl").unlink()
    assert data_files(str(tmp_path)) == ([tmp_path / "notes.jsonl"], [tmp_path / "validation.jsonl"])


def test_chosen_and_rejected_may_hold_the_whole_conversation(tmp_path: Path) -> None:
    wrong = [TURNS[0], {"role": "assistant", "content": "5"}]
    for extra in ({}, {"prompt": TURNS[:1]}, {"prompt": "2+2?"}):
        (form, rows), _, _ = _read(
            _write(tmp_path / "my.jsonl", {"chosen": TURNS, "rejected": wrong, **extra})
        )
        assert form == "preference"
        assert rows[0]["prompt"] == TURNS[:1]
        assert (rows[0]["chosen"], rows[0]["rejected"]) == (TURNS[1:], wrong[1:])


def test_ids_are_given_or_hashes_of_the_content_alone(tmp_path: Path) -> None:
    first = _read(_write(tmp_path / "a.jsonl", GOOD))[0][1][0]["id"]
    second = _read(_write(tmp_path / "b.jsonl", {"completion": "4", "prompt": "2+2?"}))[0][1][0]["id"]
    assert first == second and len(first) == 16
    assert _read(_write(tmp_path / "c.jsonl", {**GOOD, "id": 12}))[0][1][0]["id"] == "12"
    assert _read(_write(tmp_path / "d.jsonl", {**GOOD, "prompt": "2+2"}))[0][1][0]["id"] != first


def test_data_kind_decides_between_forms(tmp_path: Path) -> None:
    row = {**PAIR, "completion": "4"}
    assert _read(_write(tmp_path / "a.jsonl", row), kind="completion")[0][0] == "completion"
    assert _read(_write(tmp_path / "b.jsonl", {**GOOD, "answer": "4"}))[0][0] == "completion"
    with pytest.raises(DataError, match=r":text: the key is missing; .* data\.kind"):
        _read(_write(tmp_path / "c.jsonl", row), kind="text")


def test_rows_that_say_the_same_are_dropped_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    """Ids and further keys don't count, and the first row stays; one id for two contents is an error."""
    rows = [GOOD, {**GOOD, "id": "mine", "source": "b"}, {**GOOD, "completion": "5"}, GOOD]
    path = _write(tmp_path / "my.jsonl", *rows)
    counts = ReadCounts()
    form, kept = check_rows(located([path], BadRows(), counts), BadRows(), seen_before={}, counts=counts)
    assert form == "completion" and [row["completion"] for row in kept] == ["4", "5"]
    assert counts.duplicates == 2 and kept[0]["_at"] == f"{path}:1"
    path = _write(tmp_path / "ids.jsonl", {**GOOD, "id": 1}, {**GOOD, "id": 1, "completion": "5"})
    with pytest.raises(DataError, match="the id 1 occurs twice"):
        check_rows(located([path], BadRows(), counts), BadRows(), seen_before={}, counts=counts)


def test_of_rows_that_are_held_out_too_the_training_row_goes(tmp_path: Path) -> None:
    counts = ReadCounts()
    train = read_rows([_write(tmp_path / "a.jsonl", GOOD, {**GOOD, "prompt": "x"})], BadRows(), counts)[1]
    held_out = read_rows([_write(tmp_path / "b.jsonl", {**GOOD, "id": "other"})], BadRows(), counts)[1]
    assert [row["prompt"] for row in without_shared(train, held_out, counts)] == ["x"]
    assert counts.duplicates == 1


def test_the_same_content_twice_says_how_to_drop_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the same content occurs twice, .*; set data.deduplicate=true"):
        _read(_write(tmp_path / "my.jsonl", GOOD, GOOD))


def test_a_dialect_among_our_own_rows_is_translated_and_counted(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "my.jsonl", GOOD, {"instruction": "a", "output": "b"}, {"question": "c", "output": "d"}
    )
    (form, rows), _, counts = _read(path)
    assert form == "completion" and [row["completion"] for row in rows] == ["4", "b", "d"]
    assert sorted(counts.dialects.values()) == [1, 1]
