"""The preset chain-arithmetic: exact chains, each once, the same on every machine, none on both sides."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from llmfw.core.config import load_config
from llmfw.core.data import Chain, answer_of, chain_of, first_wrong_step, prepare, style_of, trained_text
from llmfw.core.data.chains.rows import ChainArithmetic
from llmfw.core.data.formats import canonical
from llmfw.core.errors import DataError, UsageError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import Row

BY_HAND = Chain(7, (("+", 5), ("*", 3), ("-", 4)))
"""7 + 5 = 12, 12 * 3 = 36, 36 - 4 = 32."""


def rows(split: str = "train", **options: Any) -> list[Row]:
    config = load_config(overrides=["data=chain-arithmetic"]).root.data
    config.options = {**config.options, **options}
    return list(ChainArithmetic(config, None).rows(split))


def calculated(start: str, operations: list[tuple[str, str]]) -> int:
    value = int(start)
    for sign, operand in operations:
        if sign in ("+", "Add"):
            value += int(operand)
        elif sign in ("-", "Subtract"):
            value -= int(operand)
        else:
            assert sign in ("*", "Multiply by")
            value *= int(operand)
    return value


def test_a_chain_by_hand_is_written_in_both_styles() -> None:
    assert BY_HAND.values == [12, 36, 32] and BY_HAND.result == 32
    assert BY_HAND.prompt() == "7 +5 *3 -4"
    assert BY_HAND.steps() == ["7+5=12", "12*3=36", "36-4=32"]
    assert BY_HAND.prompt("words") == ("Start with 7. Add 5. Multiply by 3. Subtract 4. What is the result?")
    assert BY_HAND.steps("words") == ["7 + 5 = 12", "12 * 3 = 36", "36 - 4 = 32"]
    assert (Chain(3, ()).values, Chain(3, ()).result, Chain(3, ()).steps()) == ([], 3, [])


def test_a_chain_comes_back_from_its_row() -> None:
    """Also from one that was written to a file and read again."""
    for row in rows(train=20):
        chain = chain_of(json.loads(json.dumps(row)))
        assert chain.prompt() == row["prompt"] and chain.steps() == row["solution"]
        assert str(chain.result) == row["answer"] and len(chain.operations) == row["level"]
    assert chain_of({"meta": {"start": 7, "operations": [["+", 5], ["*", 3], ["-", 4]]}}) == BY_HAND
    assert style_of({"meta": {"style": "words"}}) == "words" and style_of({}) == "compact"


@pytest.mark.parametrize(
    "row",
    [
        {"id": "x"},
        {"id": "x", "meta": {"start": 1}},
        {"id": "x", "meta": {"start": 1, "operations": [["/", 2]]}},
        {"id": "x", "meta": {"start": 1, "operations": [["+"]]}},
        {"id": "x", "meta": {"start": "a", "operations": []}},
    ],
)
def test_a_row_without_a_chain_is_refused(row: Mapping[str, Any]) -> None:
    with pytest.raises(DataError, match=r"NO-CHAIN.*the row x holds no chain"):
        chain_of(row)


@pytest.mark.parametrize(
    ("style", "prompt", "operation"),
    [
        ("compact", r"(\d+)((?: [-+*]\d+)+)", r" ([-+*])(\d+)"),
        (
            "words",
            r"Start with (\d+)\.((?: (?:Add|Subtract|Multiply by) \d+\.)+) What is the result\?",
            r"(Add|Subtract|Multiply by) (\d+)\.",
        ),
    ],
)
def test_every_answer_is_that_of_its_prompt_and_every_line_right(
    style: str, prompt: str, operation: str
) -> None:
    found = rows(style=style) + rows("validation", style=style)
    for row in found:
        said = re.fullmatch(prompt, row["prompt"])
        assert said is not None
        operations = re.findall(operation, said[2])
        assert row["answer"] == str(calculated(said[1], operations))
        assert row["level"] == len(operations) == len(row["solution"])
        assert first_wrong_step(row, answer_of(row)) is None
        assert canonical(row, "problems")[1] == row
    assert Counter(row["level"] for row in found) == dict.fromkeys(range(1, 6), 240)


def test_numbers_stay_in_range_and_every_operation_changes_the_value() -> None:
    seen: Counter[str] = Counter()
    for row in rows(largest=30):
        chain = chain_of(row)
        before = [chain.start, *chain.values]
        assert chain.start >= 1 and all(0 <= value <= 30 for value in before)
        assert all(one != other for one, other in pairwise(before))
        for sign, operand in chain.operations:
            seen[sign] += 1
            assert (2 <= operand <= 9) if sign == "*" else (1 <= operand <= 30)
    assert min(seen.values()) > 300  # of 3,000


def test_no_problem_occurs_twice_or_on_both_sides() -> None:
    train, validation = rows(), rows("validation")
    assert (len(train), len(validation)) == (1000, 200)
    ids = [row["id"] for row in train + validation]
    assert len(set(ids)) == len({row["prompt"] for row in train + validation}) == 1200


def test_levels_take_turns() -> None:
    assert [row["level"] for row in rows(levels=[2, 4], train=5)] == [2, 4, 2, 4, 2]
    assert [row["level"] for row in rows("validation", levels="1-3", validation=4)] == [1, 2, 3, 1]


def test_more_training_problems_are_the_same_and_further_ones() -> None:
    few, many = rows(train=100), rows(train=300)
    assert many[:100] == few and rows("validation", train=300) == rows("validation", train=100)


def test_the_same_options_give_the_same_rows_on_every_machine() -> None:
    """A hash over all rows of the preset as it is, of both sides."""
    text = json.dumps([rows(), rows("validation")], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "5ed0ce779ea7063e"


def test_the_seed_draws_others_and_the_order_of_signs_does_not_count() -> None:
    assert rows(seed=1) != rows() and len({row["id"] for row in rows(seed=1) + rows()}) > 1500
    assert rows(operations="*-+") == rows()
    assert all("*" not in row["prompt"] for row in rows(operations="+-"))


def test_all_problems_that_exist_are_given_when_all_are_asked_for() -> None:
    """Numbers up to 3, one operation. From 1: +1, +2, -1, *2, *3. From 2: +1, -1, -2. From 3: -1, -2, -3."""
    options = {"levels": 1, "largest": 3, "train": 8, "validation": 3}
    every = {"1+1", "1+2", "1-1", "1*2", "1*3", "2+1", "2-1", "2-2", "3-1", "3-2", "3-3"}
    sides = [{row["id"] for row in rows(split, **options)} for split in ("train", "validation")]
    assert sides[0] | sides[1] == every and not sides[0] & sides[1]


def test_more_problems_than_exist_are_refused_with_their_number() -> None:
    with pytest.raises(UsageError) as caught:
        rows(levels=[1, 2], largest=3, train=22, validation=4)
    assert "13 problems of level 1 are asked for" in str(caught.value)
    assert "there are 11 with numbers up to 3 and + - *" in str(caught.value)
    with pytest.raises(UsageError, match="there are 0 with"):
        rows(levels=3, largest=3, operations="+")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"levels": [0, 1]}, "levels: "),
        ({"levels": [1, 1]}, "levels: .*each number once"),
        ({"levels": []}, "levels: "),
        ({"levels": "one"}, "levels: expected a list of whole numbers"),
        ({"train": 0}, "train: .*give 1 or more"),
        ({"validation": -1}, "validation: .*give 0 or more"),
        ({"largest": 0}, "largest: "),
        ({"largest": 100_000}, "largest: .*at most 10000"),
        ({"style": "long"}, "style: 'long' is none of compact, words"),
        ({"operations": "+/"}, r"operations: '\+/' isn't made of"),
        ({"operations": ""}, "operations: "),
        ({"operations": "++"}, "operations: "),
        ({"level": 1}, "level: .*did you mean levels"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=r"error\[OPTION\] data\.options\." + said):
        rows(**option)


@pytest.mark.parametrize("style", ["compact", "words"])
def test_the_rows_become_samples_of_bytes_that_train_the_steps_and_the_answer(style: str) -> None:
    tokenizer = byte_tokenizer(512)
    words = ("data=chain-arithmetic", "data.options.train=50", "data.options.validation=10")
    config = load_config(overrides=[*words, f"data.options.style={style}"]).root
    prepared = prepare(config, tokenizer)
    assert prepared.form == "problems" and prepared.report.too_long == 0
    assert (len(prepared.train), len(prepared.validation)) == (50, 10)
    by_id = {row["id"]: row for row in prepared.rows["train"]}
    for example in prepared.train:
        text = trained_text(tokenizer, example.sequences[0])
        assert answer_of(by_id[example.id]) in text
        if style == "compact":
            assert example.length <= 128
    assert not prepared.report.warnings


def test_no_held_out_problems_may_be_asked_for() -> None:
    config = load_config(
        overrides=["data=chain-arithmetic", "data.options.train=5", "data.options.validation=0"]
    )
    prepared = prepare(config.root, byte_tokenizer())
    assert (len(prepared.train), len(prepared.validation)) == (5, 0)


def test_chains_need_no_torch() -> None:
    code = "import sys; from llmfw.core.data import Chain, first_wrong_step, wrong_step, chain_of;"
    code += "wrong_step(Chain(1, (('+', 1),)), 0, 0, 'carry'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
