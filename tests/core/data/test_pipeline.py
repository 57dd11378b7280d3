"""From a source to examples: splits, transforms by stage, caches, and a report that counts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import (
    DataModule,
    Example,
    RowsData,
    StepLoader,
    collate_with,
    peek_kind,
    prepare,
    split_rows,
)
from llmfw.core.data.module import ConfiguredData
from llmfw.core.errors import DataError, PluginError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import DatasetTransform, Transformed
from llmfw.core.schema import Root

BYTE = byte_tokenizer()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))


def _pairs(count: int, problems: int = 10**9) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{number}",
            "prompt": f"{number % problems}+1?",
            "chosen": "x" * (1 + number % 3) + f"{number}",
            "rejected": "no, " + f"{number}",
        }
        for number in range(count)
    ]


def _file(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _root(name: str, **data: Any) -> Root:
    root = Root()
    for key, value in {"name": name, **data}.items():
        setattr(root.data, key, value)
    return root


def test_a_file_becomes_examples_and_a_report(tmp_path: Path) -> None:
    prepared = prepare(_root(_file(tmp_path / "a.jsonl", _pairs(20))), BYTE)
    assert (len(prepared.train), len(prepared.validation)) == (18, 2)
    assert prepared.form == "preference" and prepared.max_length == 2048
    report = json.loads(json.dumps(prepared.report.to_dict()))
    assert report["rows_read"] == 20 and report["splits"]["train"]["samples"] == 18
    train = report["splits"]["train"]
    assert train["chosen_longer"] + train["rejected_longer"] + train["equal_length"] == 18
    assert [row["id"] for row in prepared.rows["train"]] == [example.id for example in prepared.train]


def test_the_split_keeps_prompts_together_and_needs_no_seed() -> None:
    rows = _pairs(100, problems=12)
    train, held_out = split_rows(rows, 0.2, None)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}
    assert [*sorted(train + held_out, key=lambda row: int(row["id"][1:]))] == rows
    assert 20 <= len(held_out) < 29  # whole groups of 8 or 9 rows, up to the first that reaches 20
    assert split_rows(rows, 0.2, None)[1] == held_out
    assert split_rows(rows, 0.0, None) == (rows, [])
    one = [{"id": str(number), "prompt": "same"} for number in range(5)]
    assert split_rows(one, 0.5, None) == (one, [])


def test_the_split_key_may_be_nested_and_must_be_there(tmp_path: Path) -> None:
    rows = [row | {"meta": {"topic": f"t{number % 4}"}} for number, row in enumerate(_pairs(20))]
    prepared = prepare(
        _root(_file(tmp_path / "a.jsonl", rows), split_key="meta.topic", validation="0.3"), BYTE
    )
    topics = [{row["meta"]["topic"] for row in prepared.rows[split]} for split in ("train", "validation")]
    assert len(topics[0]) == 2 and not topics[0] & topics[1]
    with pytest.raises(DataError, match=r"SPLIT.*:meta\.author: the split needs this key"):
        prepare(_root(_file(tmp_path / "b.jsonl", rows), split_key="meta.author"), BYTE)


def test_a_held_out_file_is_used_and_shared_prompts_are_counted(tmp_path: Path) -> None:
    held_out = _file(tmp_path / "v.jsonl", [*_pairs(2), {**_pairs(3)[2], "prompt": "new?"}])
    rows = [row | {"id": f"t{row['id']}"} for row in _pairs(5)]
    prepared = prepare(_root(_file(tmp_path / "a.jsonl", rows), validation=held_out), BYTE)
    assert (len(prepared.train), len(prepared.validation)) == (5, 3)
    assert prepared.report.warnings == ["2 of the 3 held-out rows ask what training rows ask too"]
    other = _file(tmp_path / "t.jsonl", [{"text": "abc"}])
    with pytest.raises(DataError, match="the held-out rows are text rows, the training rows preference rows"):
        prepare(_root(_file(tmp_path / "a.jsonl", rows), validation=other), BYTE)
    with pytest.raises(DataError, match=r"data\.validation: 1\.5 is no share"):
        prepare(_root(_file(tmp_path / "a.jsonl", rows), validation="1.5"), BYTE)


def test_limit_takes_the_first_rows_and_too_long_ones_are_counted(tmp_path: Path) -> None:
    rows = _pairs(10)
    rows[3]["chosen"] = "y" * 3000
    name = _file(tmp_path / "a.jsonl", rows)
    prepared = prepare(_root(name, limit=6, validation=None), BYTE)
    assert [example.id for example in prepared.train] == ["r0", "r1", "r2", "r4", "r5"]
    assert (prepared.report.too_long, prepared.report.rows_read) == (1, 6)
    with pytest.raises(
        DataError, match=rf"BAD-ROW\] {name}:4: \d+ tokens, \d+ more than allowed; .*data\.max_length"
    ):
        prepare(_root(name, too_long="error"), BYTE)
    with pytest.raises(DataError, match="none of the 10 training rows is left .10 are longer than 12 tokens"):
        prepare(_root(name, max_length=3, validation=None), BYTE)
    cut = prepare(_root(name, too_long="cut_end", validation=None), BYTE).report
    assert (cut.too_long, cut.cut, cut.pairs_cut_equal) == (1, 1, 0)


def test_a_pair_cut_to_equal_length_is_warned_of(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "a" * 300, "rejected": "b" * 400}, *_pairs(2)]
    report = prepare(_root(_file(tmp_path / "a.jsonl", rows), max_length=60, too_long="cut_end"), BYTE).report
    assert report.pairs_cut_equal == 1
    assert any("made 1 pairs equally long" in warning for warning in report.warnings)


def test_bad_rows_are_skipped_over_reading_and_tokenising_alike(tmp_path: Path) -> None:
    rows = _pairs(6)
    rows[1]["chosen"] = ""
    rows[2]["prompt"] = "<|im_end|>"
    name = _file(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=rf"{name}:3:prompt\[0\]\.content|{name}:2:chosen"):
        prepare(_root(name), BYTE)
    for _ in range(2):  # the second time from the cache, were refused rows kept there
        report = prepare(_root(name, on_bad_row="skip", validation=None), BYTE).report
        assert report.rows_skipped == 2 and report.splits["train"].samples == 4
        assert [message.split(":")[1] for message in report.skipped] == ["2", "3"]


class Squares(DataModule):
    """What a plugin writes: rows, and nothing else."""

    kind = "completion"

    def rows(self, split: str) -> Any:
        if split == "validation":
            return None
        return ({"prompt": f"{number}^2?", "completion": str(number * number)} for number in range(10))


def test_a_plugins_datamodule_needs_rows_only() -> None:
    assert peek_kind(Squares()) == "completion"
    prepared = prepare(_root("unused", kind="preference"), BYTE, datamodule=Squares())
    assert (len(prepared.train), len(prepared.validation), prepared.form) == (9, 1, "completion")

    class Bad(DataModule):
        def rows(self, split: str) -> Any:
            return [{"prompt": "x", "completion": "y"}, {"prompt": "x", "completion": 3}]

    with pytest.raises(
        DataError, match="Bad train row 2:completion: expected a string or a message list, got 3"
    ):
        prepare(_root("unused"), BYTE, datamodule=Bad())
    none = RowsData([])
    with pytest.raises(DataError, match="NO-ROWS"):
        prepare(_root("unused"), BYTE, datamodule=none)


def test_records_of_a_round_are_not_limited_or_split() -> None:
    prepared = prepare(_root("unused", limit=1, kind="problems"), BYTE, datamodule=RowsData(_pairs(4)))
    assert (len(prepared.train), len(prepared.validation)) == (4, 0)


def test_the_form_is_known_before_anything_is_read(tmp_path: Path) -> None:
    name = _file(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b", "reward": 1.0}])
    for data, kind in (
        (_file(tmp_path / "b.jsonl", _pairs(1)), "preference"),
        (name, "scored"),
        ("champ-problems", None),
    ):
        root = _root(data, package={"x": 1})
        if kind is not None:
            assert peek_kind(ConfiguredData(root.data, BYTE)) == kind
    with pytest.raises(DataError, match="there is no such file"):
        peek_kind(ConfiguredData(_root(str(tmp_path / "none.jsonl")).data, BYTE))
    (tmp_path / "c.jsonl").write_text("{")
    assert peek_kind(ConfiguredData(_root(str(tmp_path / "c.jsonl")).data, BYTE)) is None


def _transform(stage: Any, apply: Any, **more: Any) -> list[tuple[str, DatasetTransform]]:
    return [("toy", DatasetTransform(name="pick", stage=stage, apply=apply, **more))]


def test_transforms_act_at_their_stage_and_tell_what_they_did() -> None:
    def rows(items: list[Any]) -> Transformed:
        kept = items[::2]
        return Transformed(
            items=kept, metrics={"kept": len(kept)}, tables={"ids": [{"id": row["id"]} for row in kept]}
        )

    def tokens(items: list[Example]) -> list[Example]:
        return [dataclasses.replace(item, id=f"{item.id}/new") for item in items]

    transforms = [*_transform("rows", rows), *_transform("tokens", tokens, splits=("train", "validation"))]
    prepared = prepare(_root("unused"), BYTE, transforms, RowsData(_pairs(6), _pairs(8)[6:]))
    assert [example.id for example in prepared.train] == ["r0/new", "r2/new", "r4/new"]
    assert [example.id for example in prepared.validation] == ["r6/new", "r7/new"]
    assert prepared.report.metrics == {"data/toy/kept": 3.0}
    assert prepared.report.tables["toy/ids/train"][0] == {"id": "r0"}
    assert prepared.report.transforms[0] == "toy/pick (rows, train): 6 -> 3"


def test_a_transform_that_selects_nothing_or_breaks_a_rule_is_named() -> None:
    def run(stage: Any, apply: Any) -> None:
        prepare(_root("unused"), BYTE, _transform(stage, apply), RowsData(_pairs(3)))

    with pytest.raises(DataError, match="'toy': transform 'pick' left none of 3 rows of the train split"):
        run("rows", lambda rows: [])
    with pytest.raises(PluginError, match="'toy', transform 'pick' returned two samples with the id r0"):
        run("tokens", lambda items: [items[0], items[0]])
    with pytest.raises(PluginError, match="'toy', transform 'pick' returned a row .* the id r0 occurs twice"):
        run("rows", lambda rows: [rows[0], rows[0]])
    with pytest.raises(
        PluginError, match="returned a row that can't be used: .*:chosen: the answer is empty"
    ):
        run("rows", lambda rows: [row | {"chosen": ""} for row in rows])
    with pytest.raises(PluginError, match=r"'toy'.* failed in transform 'pick' .*: ZeroDivisionError"):
        run("rows", lambda rows: 1 // 0)
    with pytest.raises(PluginError, match=r"'toy'.* failed in transform 'pick' .*: TypeError"):
        run("tokens", lambda items: None)
    with pytest.raises(PluginError, match="returned str, not an Example"):
        run("tokens", lambda items: ["x"])


def test_an_order_transform_reaches_the_loader_and_its_errors_name_it() -> None:
    backwards = _transform("order", lambda examples, epoch: list(range(len(examples)))[::-1])
    prepared = prepare(_root("unused"), BYTE, backwards, RowsData(_pairs(4)))
    loader = StepLoader(
        prepared.train,
        collate_with(0),
        micro_batch=1,
        accumulate=1,
        seed=0,
        max_steps=4,
        order=prepared.order,
    )
    assert [step[0].sample_ids for step in loader] == [("r3",), ("r2",), ("r1",), ("r0",)]
    broken = prepare(_root("unused"), BYTE, _transform("order", lambda examples: []), RowsData(_pairs(4)))
    assert broken.order is not None
    with pytest.raises(PluginError, match=r"'toy'.* failed in transform 'pick' .*: TypeError"):
        broken.order(broken.train, 0)


def test_packing_joins_texts_into_units_and_refuses_pairs(tmp_path: Path) -> None:
    texts = _file(
        tmp_path / "a.jsonl", [{"id": f"t{number}", "text": "word " * (3 + number)} for number in range(8)]
    )
    prepared = prepare(_root(texts, packing=True, max_length=30, validation=None), BYTE)
    assert len(prepared.train) < 8 and max(example.length for example in prepared.train) <= 120
    names = [name for example in prepared.train for name in example.sample_ids]
    assert sorted(names) == [f"t{number}" for number in range(8)]
    assert prepared.report.splits["train"].samples == 8
    with pytest.raises(DataError, match=r"data\.packing: preference pairs can't be packed"):
        prepare(_root(_file(tmp_path / "b.jsonl", _pairs(3)), packing=True), BYTE)


def test_the_second_time_tokens_come_from_the_cache_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmfw.core.data import Encoder

    rows = [*_pairs(5), {**_pairs(6)[5], "chosen": "y" * 300}]
    root = _root(_file(tmp_path / "a.jsonl", rows), max_length=60, too_long="cut_end")
    first = prepare(root, BYTE)
    calls: list[str] = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, form, row: calls.append(row["id"]) or encode(self, form, row)
    )
    second = prepare(root, BYTE)
    assert calls == []
    assert (second.train, second.validation, second.fingerprint) == (
        first.train,
        first.validation,
        first.fingerprint,
    )
    assert second.report.to_dict() == first.report.to_dict() and second.report.cut == 1
    for changed in (
        _root(root.data.name, max_length=61, too_long="cut_end"),
        _root(root.data.name, max_length=60),
    ):
        calls.clear()
        prepare(changed, BYTE)
        assert calls
    calls.clear()
    other = byte_tokenizer()
    other.chat_template = other.chat_template.replace("assistant", "helper")
    prepare(root, other)
    assert calls


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    root = _root(_file(tmp_path / "a.jsonl", _pairs(5)), validation=None)
    first = prepare(root, BYTE)
    (tokens,) = (tmp_path / "cache" / "tokens").glob("*/tokens.safetensors")
    whole = tokens.read_bytes()
    flipped = bytearray(whole)
    flipped[-300] ^= 1  # one bit of one token: safetensors itself doesn't notice
    for damage in (bytes(flipped), whole[:-10], b""):
        tokens.write_bytes(damage)
        assert prepare(root, BYTE).train == first.train
        assert tokens.read_bytes() == whole
    tokens.with_name("examples.json").write_text("{")
    assert prepare(root, BYTE).train == first.train


def test_a_change_of_one_token_or_flag_changes_the_fingerprint(tmp_path: Path) -> None:
    prints = {prepare(_root("unused"), BYTE, datamodule=RowsData(rows)).fingerprint for rows in _variants()}
    assert len(prints) == 4


def _variants() -> list[list[dict[str, Any]]]:
    base = _pairs(3)
    return [base, base[::-1], [base[0] | {"chosen": "other"}, *base[1:]], base[:2]]
