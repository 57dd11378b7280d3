"""Streamed rows: every row once a pass, exact resume, one order for any world and workers."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import DataModule, Prepared, StreamLoader, collate_with, prepare
from llmfw.core.data.refusals import Around, refuse_settings
from llmfw.core.errors import DataError, LlmfwError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import DatasetTransform
from llmfw.core.schema import Root

BYTE = byte_tokenizer()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _file(name: str, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).write_text("".join(line + "\n" for line in lines))
    return name


def _asked(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "prompt": f"{i}?", "completion": "x" * (1 + i % 7)} for i in range(count)]


def _texts(count: int) -> list[dict[str, Any]]:
    return [{"id": f"t{i}", "text": "word " * (1 + i % 9)} for i in range(count)]


def _root(name: str = "a.jsonl", seed: int = 3, **data: Any) -> Root:
    root = Root(seed=seed)
    root.trainer.max_steps = 5
    settings = {"name": name, "streaming": True, "shuffle_buffer": 8, "validation": None, **data}
    for key, value in settings.items():
        setattr(root.data, key, value)
    return root


def _loader(prepared: Prepared, **changed: Any) -> StreamLoader:
    assert prepared.stream is not None
    asked = {"micro_batch": 2, "accumulate": 2, "seed": 3, "max_steps": 14} | changed
    return StreamLoader(prepared.stream, collate_with(0), **asked)


def _steps(root: Root, **changed: Any) -> list[list[str]]:
    """The samples of each step, over all ranks."""
    world = changed.pop("world", 1)
    loaders = [_loader(prepare(root, BYTE), rank=rank, world=world, **changed) for rank in range(world)]
    return [
        sorted(name for batches in ranks for batch in batches for name in batch.sample_ids)
        for ranks in zip(*loaders, strict=True)
    ]


def test_every_row_comes_once_a_pass_and_passes_differ() -> None:
    _file("a.jsonl", _asked(28))
    for grouped in (True, False):
        steps = _steps(_root(), group_by_length=grouped)
        flat = list(itertools.chain(*steps))
        assert Counter(flat) == Counter({f"r{i}": 2 for i in range(28)})
        assert set(flat[:28]) == set(flat[28:]) and steps[:7] != steps[7:]
    assert _steps(_root(seed=4)) != _steps(_root())


def test_rows_are_shuffled_within_the_buffer() -> None:
    """With a buffer of 8 a row can't come before the row that stands 15 lines above it."""
    _file("a.jsonl", _asked(64))
    order = [int(name[1:]) for step in _steps(_root(), max_steps=16, group_by_length=False) for name in step]
    assert order != sorted(order)
    assert all(abs(place - row) < 16 for place, row in enumerate(order))


@pytest.mark.parametrize("packing", [False, True])
def test_world_accumulation_and_workers_change_nothing(packing: bool) -> None:
    _file("a.jsonl", _asked(30))
    _file("b.jsonl", _texts(21))
    root = _root(mix={"a.jsonl": 2, "b.jsonl": 1}, packing=packing, max_length=25)
    whole = _steps(root, micro_batch=2, accumulate=4)
    assert whole == _steps(root, micro_batch=4, accumulate=2)
    assert whole == _steps(root, micro_batch=2, accumulate=2, world=2)
    assert whole == _steps(root, micro_batch=2, accumulate=1, world=4)
    assert whole == _steps(root, micro_batch=2, accumulate=4, workers=2)


@pytest.mark.parametrize("packing", [False, True])
def test_a_restart_goes_on_exactly_with_a_position_and_without(packing: bool) -> None:
    _file("a.jsonl", [*_asked(17), '{"prompt": 1}', *({"prompt": f"long {i}", "completion": "y" * 400}
                                                     for i in range(3))])  # fmt: skip
    _file("b.jsonl", _texts(11))
    root = _root(mix={"a.jsonl": 2, "b.jsonl": 1}, packing=packing, max_length=25, on_bad_row="skip")
    loader = _loader(prepare(root, BYTE))
    whole = [[batch.sample_ids for batch in step] for step in loader]
    for start in (1, 5, 13, 14):
        again = prepare(root, BYTE)
        assert again.stream is not None
        plain = [[batch.sample_ids for batch in step] for step in _loader(again, start_step=start)]
        assert plain == whole[start:]
        position = json.loads(json.dumps(loader.stream.position(start)))
        again.stream.restore(start, position)
        resumed = _loader(again, start_step=start)
        assert [[batch.sample_ids for batch in step] for step in resumed] == whole[start:]
        assert resumed.stream.told(14) == loader.stream.told(14)
    assert loader.stream.told(14)["a.jsonl"]["bad"] == 1
    assert loader.stream.told(14)["a.jsonl"]["too_long"] == 3


def test_a_restart_tokenises_one_block_again_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmfw.core.data import Encoder

    _file("a.jsonl", _asked(400))
    prepared = prepare(_root(shuffle_buffer=20), BYTE)
    loader = _loader(prepared, max_steps=60)
    whole = [[batch.sample_ids for batch in step] for step in loader]
    seen: list[str] = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, form, row: seen.append(row["id"]) or encode(self, form, row)
    )
    resumed = _loader(prepared, start_step=50, max_steps=60)
    assert [[batch.sample_ids for batch in step] for step in resumed] == whole[50:]
    assert len(seen) <= 40 + 2 * 20


def test_held_out_rows_are_decided_by_their_key_and_never_trained() -> None:
    rows = [{"id": f"r{i}", "prompt": f"{i % 40}?", "completion": f"{i}"} for i in range(200)]
    _file("a.jsonl", rows)
    prepared = prepare(_root(validation="0.25", shuffle_buffer=500), BYTE)
    held_out = {row["prompt"] for row in prepared.rows["validation"]}
    assert 4 <= len(held_out) <= 16 and len(prepared.validation) == 5 * len(held_out)
    seen = {name for step in _loader(prepared, max_steps=60) for batch in step for name in batch.sample_ids}
    assert seen == {row["id"] for row in rows if row["prompt"] not in held_out}
    root = _root(validation="0.25", shuffle_buffer=500)
    root.trainer.validation_limit = 7
    few = prepare(root, BYTE)
    assert few.validation == prepared.validation[:7]
    assert "the first 7 of them are measured" in few.report.notes[0]
    told = _loader(prepared, max_steps=1).stream
    assert told.sample_ids(59) and told.told(60)["all"]["held_out"] == len(prepared.validation)


def test_the_settings_of_the_split_and_of_the_form_hold_for_a_stream() -> None:
    rows = [
        {"id": f"r{i}", "prompt": f"{i}?", "answer": "4", "completion": "x", "topic": i % 10}
        for i in range(100)
    ]
    _file("a.jsonl", rows)
    prepared = prepare(_root(validation="0.3", split_key="topic", kind="problems"), BYTE)
    assert prepared.form == "problems"
    held_out = {row["topic"] for row in prepared.rows["validation"]}
    assert 0 < len(held_out) < 10
    seen = {name for step in _loader(prepared, max_steps=30) for batch in step for name in batch.sample_ids}
    assert seen == {row["id"] for row in rows if row["topic"] not in held_out}
    with pytest.raises(DataError, match="BAD-ROW.*a.jsonl:1:missing: the split needs this key"):
        prepare(_root(validation="0.3", split_key="missing"), BYTE)


def test_bad_rows_are_refused_by_line_or_counted_up_to_a_limit_in_the_run() -> None:
    bad = ['{"prompt": ', '{"prompt": "a"}', '{"prompt": "b", "completion": "<|im_end|>"}']
    _file("a.jsonl", [*_asked(80), *bad])
    with pytest.raises(DataError, match=r"BAD-ROW\] a.jsonl:81: not JSON"):
        list(_loader(prepare(_root(), BYTE), max_steps=21))
    skipping = prepare(_root(on_bad_row="skip"), BYTE)
    loader = _loader(skipping, max_steps=41)  # into the third pass
    list(loader)
    told = loader.stream.told(41)["all"]
    assert told["bad"] == 3 and [message.split(":")[1] for message in told["messages"]] == ["81", "82", "83"]
    limited = prepare(_root(on_bad_row="skip", max_bad_rows=2), BYTE)
    with pytest.raises(DataError, match="BAD-ROWS.*more than 2 rows can't be used; the last: .*a.jsonl:83"):
        list(_loader(limited, max_steps=21))
    with pytest.raises(DataError, match="BAD-ROW.*a.jsonl:81"):
        list(_loader(prepare(_root(), BYTE), max_steps=21, workers=2))


def test_a_stream_that_gives_nothing_or_another_form_says_so() -> None:
    _file("long.jsonl", [{"text": "word " * 300 + str(i)} for i in range(5)])
    with pytest.raises(
        DataError, match="NO-SAMPLES.*a whole pass gave no training sample .5 rows are longer"
    ):
        list(_loader(prepare(_root("long.jsonl", max_length=20), BYTE)))
    _file("mixed.jsonl", [*_texts(3), *_asked(3)])
    with pytest.raises(DataError, match=r"mixed.jsonl:4: this is a completion row, but the first is a text"):
        list(_loader(prepare(_root("mixed.jsonl"), BYTE)))
    _file("none.jsonl", [])
    with pytest.raises(DataError, match="NO-ROWS"):
        prepare(_root("none.jsonl"), BYTE)


def test_long_texts_are_split_while_streaming() -> None:
    _file("a.jsonl", [{"id": "a", "text": "x" * 95}, {"id": "b", "text": "y"}])
    steps = _steps(_root(too_long="split", max_length=10), micro_batch=2, accumulate=2, max_steps=1)
    assert steps == [["a#1", "a#2", "a#3", "b"]]


def test_rows_of_a_plugin_can_be_streamed() -> None:
    class Squares(DataModule):
        kind = "completion"

        def rows(self, split: str) -> Any:
            if split == "validation":
                return None
            return ({"id": f"r{n}", "prompt": f"{n}^2?", "completion": str(n * n)} for n in range(10))

    prepared = prepare(_root("unused"), BYTE, datamodule=Squares())
    flat = [name for step in _loader(prepared, max_steps=5) for batch in step for name in batch.sample_ids]
    assert Counter(flat) == Counter({f"r{n}": 2 for n in range(10)})


def test_another_beginning_or_end_of_the_file_is_noticed() -> None:
    _file("a.jsonl", _asked(300))
    first = prepare(_root(), BYTE).fingerprint
    assert prepare(_root(), BYTE).fingerprint == first
    _file("a.jsonl", [*_asked(300)[:-1], {"id": "other", "prompt": "p", "completion": "q"}])
    assert prepare(_root(), BYTE).fingerprint != first


_TRANSFORM = DatasetTransform(name="pick", stage="rows", apply=list)
_ORDER = DatasetTransform(name="sorted", stage="order", apply=list)


@pytest.mark.parametrize(
    ("data", "trainer", "around", "says"),
    [
        ({}, {"max_steps": None}, {}, "STREAM-STEPS.*trainer.max_steps: a stream has no length"),
        ({}, {"reference": "cache"}, {"needs_reference": True}, "STREAM-CACHE"),
        ({}, {}, {"sampler": "rft"}, "STREAM-ROUNDS.*'rft'"),
        ({}, {}, {"transforms": [("toy", _TRANSFORM)]}, "STREAM-TRANSFORM.*'pick' of plugin 'toy'"),
        ({"deduplicate": True}, {}, {}, "STREAM-DEDUPLICATE"),
        ({"mix": {"a": 1.0}, "mix_until": "all"}, {}, {}, "MIX-UNTIL.*a stream has no epochs"),
        ({"streaming": False, "mix_until": "all"}, {}, {}, "MIX-UNTIL.*without data.mix"),
        ({"streaming": False}, {}, {}, "STREAM-OFF.*shuffle_buffer"),
        ({"mix": {"a": 1.0}}, {}, {"source": "toy"}, "MIX-SOURCE.*'toy' brings its own rows"),
        (
            {"streaming": False, "shuffle_buffer": 1000, "mix": {"a": 1.0}},
            {},
            {"transforms": [("toy", _ORDER)]},
            "MIX-ORDER.*the order that plugin 'toy' brings",
        ),
    ],
)
def test_what_a_stream_or_a_mixture_can_not_do_is_refused(
    data: dict[str, Any], trainer: dict[str, Any], around: dict[str, Any], says: str
) -> None:
    root = _root(**data)
    for key, value in trainer.items():
        setattr(root.trainer, key, value)
    with pytest.raises(LlmfwError, match=says) as caught:
        refuse_settings(root, Around(**around))
    assert caught.value.exit_code == 2
