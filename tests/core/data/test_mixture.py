"""Sources with weights: the schedule, the order that it makes, and how the pipeline joins the sources."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.data import Example, StepLoader, TokenSequence, audit, collate_with, prepare
from llmfw.core.data.mixture import Mix, MixOrder, Schedule
from llmfw.core.data.sources import open_sources
from llmfw.core.errors import ConflictError, DataError, LlmfwError, UsageError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import DatasetTransform, Transformed
from llmfw.core.schema import DataConfig, Root

BYTE = byte_tokenizer()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _file(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def _asked(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "prompt": f"{i}?", "completion": "x" * (1 + i % 5)}
        for i in range(start, start + count)
    ]


def _texts(count: int) -> list[dict[str, Any]]:
    return [{"id": f"t{i}", "text": f"text number {i}"} for i in range(count)]


def _root(mix: dict[str, float], **data: Any) -> Root:
    root = Root()
    for key, value in {"mix": mix, **data}.items():
        setattr(root.data, key, value)
    return root


def _examples(**sizes: int) -> list[Example]:
    return [
        Example(
            id=f"{label}{i}", kind="text", source=label,
            sequences=(TokenSequence((1,) * (2 + i % 7), (False, *[True] * (1 + i % 7))),),
        )
        for label, size in sizes.items()
        for i in range(size)
    ]  # fmt: skip


def test_two_sources_of_weights_2_and_1_take_turns_as_worked_out_by_hand() -> None:
    """Shares 2/3 and 1/3; with two sources one is served once it lags by half a sample or more. Draw 1: lags
    2/3, 1/3: a. Draw 2: a 4/3 - 1 = 1/3, b 2/3: b. Draw 3: a 2 - 1 = 1, b 0: a. Then it begins anew.
    """
    draws = Schedule([2, 1]).draws(0, 6)
    assert draws == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]
    assert Schedule([0.5, 0.25]).parts == [2, 1] and Schedule([2, 1]).period == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(0, 300))
def test_no_source_is_ever_a_whole_sample_from_its_share(weights: list[int], jump: int) -> None:
    schedule = Schedule(weights)
    given = [0] * len(weights)
    draws = schedule.draws(0, 400)
    for done, (source, before) in enumerate(draws, start=1):
        assert before == given[source]
        given[source] += 1
        for weight, count in zip(weights, given, strict=True):
            assert abs(count - weight / sum(weights) * done) < 1
    assert Schedule(weights).draws(jump, jump + 20) == draws[jump : jump + 20]
    assert schedule.draws(jump, jump + 20) == draws[jump : jump + 20]  # walking back
    assert sum(schedule.counts(400)) == 400


def test_each_source_passes_through_its_own_samples_and_is_shuffled_anew() -> None:
    """12 samples of a and 3 of b at 2:1: 36 draws are two passes through a and four through b."""
    order = MixOrder(_examples(a=12, b=3), 4, seed=1, mix=Mix({"a": 2.0, "b": 1.0}), group_by_length=False)
    drawn = [order.examples[index].id for step in range(9) for index in order.samples(step)]
    for label, size, count in (("a", 12, 2), ("b", 3, 4)):
        own = [name for name in drawn if name.startswith(label)]
        passes = [own[start : start + size] for start in range(0, len(own), size)]
        assert len(passes) == count and all(len(set(each)) == size for each in passes)
        assert len({tuple(each) for each in passes}) > 1
    grouped = MixOrder(_examples(a=12, b=3), 4, seed=1, mix=Mix({"a": 2.0, "b": 1.0}))
    for step in range(9):
        lengths = [grouped.examples[index].length for index in grouped.samples(step)]
        assert lengths == sorted(lengths, reverse=True)
        assert sorted(grouped.samples(step)) == sorted(order.samples(step))


def test_an_epoch_ends_with_the_first_source_or_with_all() -> None:
    """a has 12 samples at share 2/3: seen in full after 18 draws; b 3 at 1/3: after 9."""
    mix = {"a": 2.0, "b": 1.0}
    for until, samples in (("first", 9), ("all", 18)):
        order = MixOrder(_examples(a=12, b=3), 4, seed=0, mix=Mix(mix, until))  # type: ignore[arg-type]
        assert order.epoch_samples == samples and order.steps_per_epoch == samples / 4
        assert order.epoch(0) == 0 and order.epoch(samples // 4 + 1) == 1
    seen = {order.examples[index].id for step in range(5) for index in order.samples(step)}
    assert len(seen) == 15  # 5 steps of 4 hold the 18


@pytest.mark.parametrize("grouped", [True, False])
def test_the_samples_of_a_step_are_the_same_for_any_world_workers_and_restart(grouped: bool) -> None:
    mix = Mix({"a": 2.0, "b": 1.0, "c": 0.3})

    def steps(world: int, accumulate: int, start: int = 0, workers: int = 0) -> list[list[str]]:
        loaders = [
            StepLoader(
                _examples(a=20, b=11, c=3), collate_with(0), micro_batch=2, accumulate=accumulate, seed=5,
                max_steps=12, start_step=start, rank=rank, world=world, workers=workers, mix=mix,
                group_by_length=grouped,
            )
            for rank in range(world)
        ]  # fmt: skip
        return [
            sorted(name for batches in ranks for batch in batches for name in batch.sample_ids)
            for ranks in zip(*loaders, strict=True)
        ]

    whole = steps(1, 4)
    assert whole == steps(2, 2) == steps(4, 1) == steps(1, 4, workers=2)
    assert steps(2, 2, start=7) == whole[7:]
    assert all(len(step) == 8 for step in whole)


def test_sources_of_several_forms_are_joined_and_told_apart() -> None:
    _file("x/a.jsonl", _asked(20))
    _file("y/a.jsonl", _asked(10, start=15))
    _file("texts.jsonl", _texts(10))
    root = _root({"x/a.jsonl": 2, "y/a.jsonl": 1, "texts.jsonl": 1}, validation="0.2")
    prepared = prepare(root, BYTE)
    report = json.loads(json.dumps(prepared.report.to_dict()))
    assert list(report["sources"]) == ["x/a.jsonl", "y/a.jsonl", "texts.jsonl"]
    assert [source["share"] for source in report["sources"].values()] == [0.5, 0.25, 0.25]
    assert report["form"] == "completion, text"
    counted = Counter(example.source for example in [*prepared.train, *prepared.validation])
    assert counted == {"x/a.jsonl": 20, "y/a.jsonl": 10, "texts.jsonl": 10}
    held_out = Counter(example.source for example in prepared.validation)
    assert all(held_out[label] >= 2 for label in counted)
    first_three = {example.source for example in prepared.validation[:3]}
    assert len(first_three) == 3  # a limit on validation takes some of each
    names = [example.id for example in [*prepared.train, *prepared.validation]]
    assert len(set(names)) == 40 and "x/a.jsonl/r15" in names and "y/a.jsonl/r15" in names and "r0" in names
    for part in prepared.parts:
        for split, examples in part.examples.items():
            assert not audit(examples, BYTE, part.rows[split], part.form)


def test_one_held_out_file_serves_the_whole_mixture() -> None:
    _file("a.jsonl", _asked(6))
    _file("b.jsonl", _texts(6))
    _file("held.jsonl", [{"id": "h", "prompt": "new?", "completion": "yes"}])
    prepared = prepare(_root({"a.jsonl": 1, "b.jsonl": 1}, validation="held.jsonl"), BYTE)
    assert len(prepared.train) == 12 and [example.id for example in prepared.validation] == ["h"]


def test_a_preset_in_a_mixture_keeps_its_own_settings() -> None:
    _file("a.jsonl", _asked(6))
    sources = open_sources(
        DataConfig(mix={"champ-problems": 1.0, "a.jsonl": 2.0}, split_key="id", kind="completion"), BYTE
    )
    first, second = (source.config for source in sources)
    assert first is not None and second is not None
    assert (first.kind, first.package["distribution"]) == ("problems", "champ-dataset")
    assert (second.kind, second.package, second.split_key) == ("completion", {}, "id")


@pytest.mark.parametrize(
    ("mix", "error", "says"),
    [
        ({"a.jsonl": 1, "./a.jsonl": 1}, UsageError, "MIX-TWICE.*name the same data"),
        ({"folder": 1, "folder/train.jsonl": 1}, UsageError, "MIX-TWICE.*folder and folder/train.jsonl"),
        ({"a.jsonl": 1, "pairs.jsonl": 1}, ConflictError, r"MIX-FORMS.*a.jsonl has completion rows"),
        ({"a.jsonl": 1, "scored.jsonl": 1}, ConflictError, "MIX-FORMS.*scored batches"),
        ({"a.jsonl": 1, "extra.jsonl": 1}, DataError, r"MIX-EXTRA\] extra.jsonl.*'level'"),
        ({"a.jsonl": 1, "none.jsonl": 1}, DataError, "there is no such file"),
    ],
)
def test_sources_that_do_not_fit_together_are_named(
    mix: dict[str, float], error: type[LlmfwError], says: str
) -> None:
    _file("a.jsonl", _asked(6))
    _file("folder/train.jsonl", _asked(6))
    _file("pairs.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a",
                                                                          "rejected": "b"}])  # fmt: skip
    _file("scored.jsonl", [row | {"reward": 1.0} for row in _asked(3)])
    _file("extra.jsonl", [row | {"extra": {"level": 1}} for row in _asked(3)])
    with pytest.raises(error, match=says):
        prepare(_root(mix, validation=None), BYTE)


def test_a_source_of_which_nothing_is_left_is_named() -> None:
    _file("a.jsonl", _asked(6))
    _file("long.jsonl", [{"text": "word " * 200}])
    prepared = prepare(_root({"a.jsonl": 1, "long.jsonl": 1}, validation=None, max_length=30), BYTE)
    with pytest.raises(DataError, match=r"NO-SAMPLES\] long.jsonl: no training sample of this source"):
        StepLoader(
            prepared.train,
            collate_with(0),
            micro_batch=1,
            accumulate=1,
            seed=0,
            max_steps=1,
            mix=prepared.mix,
        )


def test_packing_stays_inside_a_source() -> None:
    _file("a.jsonl", _asked(12))
    _file("b.jsonl", _texts(12))
    prepared = prepare(
        _root({"a.jsonl": 1, "b.jsonl": 1}, validation=None, packing=True, max_length=30), BYTE
    )
    for unit in prepared.train:
        assert {name[0] for name in unit.sample_ids} == {"r" if unit.source == "a.jsonl" else "t"}
    report = prepared.report.sources["b.jsonl"].splits["train"]
    assert report.rows > 0 and report.samples == 12 and 0 < report.efficiency <= 1


def test_transforms_act_on_one_source_at_a_time_and_may_bring_rows_of_one_id() -> None:
    _file("a.jsonl", _asked(4))
    _file("b.jsonl", _texts(3))

    def keep_two(items: list[Any]) -> Transformed:
        kept = [{**item, "id": f"new{place}"} for place, item in enumerate(items[:2])]
        return Transformed(items=kept, metrics={"seen": len(items)}, tables={"ids": [{"id": 1}]})

    transform = DatasetTransform(name="pick", stage="rows", apply=keep_two)
    prepared = prepare(_root({"a.jsonl": 1, "b.jsonl": 1}, validation=None), BYTE, [("toy", transform)])
    assert [example.id for example in prepared.train] == [
        "a.jsonl/new0", "a.jsonl/new1", "b.jsonl/new0", "b.jsonl/new1",
    ]  # fmt: skip
    assert prepared.report.metrics == {"data/a.jsonl/toy/seen": 4.0, "data/b.jsonl/toy/seen": 3.0}
    assert set(prepared.report.tables) == {"toy/ids/train/a.jsonl", "toy/ids/train/b.jsonl"}
    assert prepared.report.transforms[1] == "toy/pick (rows, train, b.jsonl): 3 -> 2"


def test_the_report_prints_a_line_for_each_source(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    _file("a.jsonl", _asked(30))
    _file("b.jsonl", _texts(20))
    prepared = prepare(_root({"a.jsonl": 3, "b.jsonl": 1}, packing=True, max_length=30), BYTE)
    Console(width=120).print(prepared.report)
    said = capsys.readouterr().out
    assert "mix of a.jsonl (3), b.jsonl (1) (completion, text rows)" in said
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["b.jsonl"]]
    assert line.split()[1:4] == ["text", "25.0%", "18"] and line.split()[-1] == "2"
    assert "of their positions used" in said
