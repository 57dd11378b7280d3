"""Words of a sweep."""

from __future__ import annotations

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.settings.swept import Swept, combinations, split_swept


def test_choices_and_ranges_are_told_from_settings():
    fixed, swept = split_swept(
        [
            "model=tiny-llama",
            "optimizer.lr=1e-5,1e-4",
            "adapter.r=4..64",
            "a.b=log(1e-6..1e-3)",
            "data=../x.jsonl",
        ]
    )
    assert fixed == ["model=tiny-llama", "data=../x.jsonl"]
    assert swept == [
        Swept(key="optimizer.lr", choices=("1e-5", "1e-4")),
        Swept(key="adapter.r", low=4, high=64, whole=True),
        Swept(key="a.b", low=1e-6, high=1e-3, log=True),
    ]


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("adapter.target_modules=[q_proj,v_proj],[all-linear]", ("[q_proj,v_proj]", "[all-linear]")),
        ("data.mix={a: 1, b: 2},{a: 2, b: 1}", ("{a: 1, b: 2}", "{a: 2, b: 1}")),
        ("run.name='a, b','c'", ("'a, b'", "'c'")),
        ("trainer.accumulate=1, 2 ,4", ("1", "2", "4")),
    ],
)
def test_commas_inside_brackets_and_quotes_are_no_choices(word, choices):
    assert split_swept([word])[1][0].choices == choices


@pytest.mark.parametrize(
    "word", ["adapter.target_modules=[q_proj,v_proj]", "generation.stop=['a,b']", "x='a,b'"]
)
def test_one_value_with_commas_of_its_own_is_a_setting(word):
    assert split_swept([word]) == ([word], [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a=1,2", "a=3,4"], "swept twice"),
        (["a=1,2", "a=3"], "both set and swept"),
        (["a=1,,2"], "empty"),
        (["a=1,2,"], "empty"),
        (["a=1,2,1"], "the value 1 stands there twice"),
        (["a=5..1"], "no range"),
        (["a=log(0..1)"], "no range"),
    ],
)
def test_what_can_not_be_swept_is_refused(words, says):
    with pytest.raises(UsageError, match=says):
        split_swept(words)


def test_the_last_key_of_a_grid_changes_fastest():
    _, swept = split_swept(["a=1,2", "b=x,y"])
    assert combinations(swept) == [
        {"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"},
    ]  # fmt: skip


def test_a_range_is_no_grid():
    with pytest.raises(UsageError, match="range can't be walked"):
        combinations(split_swept(["a=1..3"])[1])


def test_a_swept_key_is_said_as_it_was_written():
    _, swept = split_swept(["a=1,2", "b=4..64", "c=log(0.001..0.1)"])
    assert [one.said for one in swept] == ["1,2", "4..64", "log(0.001..0.1)"]
    assert [one.corners for one in swept] == [("1", "2"), ("4", "64"), ("0.001", "0.1")]
