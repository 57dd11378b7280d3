"""Which line of a response is the first that isn't its chain's step, and lines that are wrong on purpose."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfw.core.data import STEP_ERRORS, Chain, first_wrong_step, wrong_step
from llmfw.core.data.chains.chain import SIGNS, STYLES, Style
from llmfw.core.data.chains.steps import StepError
from llmfw.core.records import Row

ROW: Row = {"meta": {"start": 7, "operations": [["+", 5], ["*", 3], ["-", 4]]}}
"""7 + 5 = 12, 12 * 3 = 36, 36 - 4 = 32."""


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("7+5=12\n12*3=36\n36-4=32\nAnswer: 32", None),
        ("7 + 5 = 12\n12 * 3 = 36\n36 - 4 = 32", None),  # the other style
        ("7+5=12", None),  # right as far as it goes
        ("", None),
        ("7+5=13\n13*3=39", 0),  # another result
        ("7+5=12\n13*3=39", 1),  # another value carried over
        ("7+5=12\n12*2=24", 1),  # another operand
        ("7+5=12\n12+3=15", 1),  # another operation
        ("7+5=12\n36-4=32", 1),  # a step left out
        ("7+5=12\n12*3=36\n12*3=36", 2),  # a step twice
        ("5+7=12", 0),  # other operands, though the result is right
        ("7+5=12\nthen times three", 1),
        ("7+5=12\n\n12*3=36", 1),
        ("7+5=012", 0),
        ("7+5=12.0", 0),
        ("7+5=12 12*3=36", 0),
        ("Answer: 32", 0),  # before the steps
        ("7+5=12\n12*3=36\n36-4=32\nAnswer: 31", 3),
        ("7+5=12\n12*3=36\n36-4=32\n32", 3),
        ("7+5=12\n12*3=36\n36-4=32\nAnswer: 32\nAnswer: 32", 4),
    ],
)
def test_the_first_wrong_line_by_hand(text: str, first: int | None) -> None:
    assert first_wrong_step(ROW, text) == first_wrong_step(ROW, text.splitlines()) == first


CHAIN = Chain(7, (("+", 5), ("*", 3), ("-", 4)))


def every(chain: Chain, index: int, kind: StepError, style: Style = "compact") -> set[str]:
    return {wrong_step(chain, index, seed, kind, style) for seed in range(200)}


def test_an_error_of_calculation_keeps_the_operands() -> None:
    """12 * 3 is 36; off by 1, 2, 3 or 10."""
    assert every(CHAIN, 1, "calculation") == {f"12*3={n}" for n in (26, 33, 34, 35, 37, 38, 39, 46)}
    assert every(CHAIN, 1, "calculation", "words") >= {"12 * 3 = 26", "12 * 3 = 46"}


def test_an_error_of_carrying_over_calculates_rightly_from_another_value() -> None:
    """The value before 36 - 4 is 36; from 26, 33, 34, 35, 37, 38, 39 or 46 it's four less."""
    assert every(CHAIN, 2, "carry") == {f"{n}-4={n - 4}" for n in (26, 33, 34, 35, 37, 38, 39, 46)}
    # 2 - 2 = 0: from 1 or 0 it would be below 0
    assert every(Chain(2, (("-", 2),)), 0, "carry") == {"3-2=1", "4-2=2", "5-2=3"}


def test_another_operation_has_another_result_where_there_is_one() -> None:
    """2 + 2 = 2 * 2, so only 2 - 2 is left. 3 - 5 is below 0, so 3 * 5."""
    assert every(CHAIN, 0, "operation") == {"7-5=2", "7*5=35"}
    assert every(Chain(2, (("+", 2),)), 0, "operation") == {"2-2=0"}
    assert every(Chain(3, (("+", 5), ("+", 9))), 0, "operation") == {"3*5=15"}


def test_no_number_is_longer_than_the_chains_longest_where_that_can_be() -> None:
    """60 * 9 = 540 has three digits, in a chain whose numbers have two; 95 + 3 off by more than 1 has too.
    3 + 5 can only become 15.
    """
    assert every(Chain(60, (("-", 9),)), 0, "operation") == {"60+9=69"}
    assert every(Chain(95, (("+", 3),)), 0, "calculation") == {f"95+3={n}" for n in (88, 95, 96, 97, 99)}
    assert every(Chain(3, (("+", 5),)), 0, "operation") == {"3*5=15"}


def test_the_seed_alone_chooses() -> None:
    drawn = [wrong_step(CHAIN, 1, seed, "calculation") for seed in range(4)]
    assert drawn == [wrong_step(CHAIN, 1, seed, "calculation") for seed in range(4)]
    assert drawn == ["12*3=39", "12*3=34", "12*3=33", "12*3=35"]


def test_a_step_or_an_error_that_does_not_exist_is_refused() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"step {index} of 3"):
            wrong_step(CHAIN, index, 0, "carry")
    with pytest.raises(ValueError, match="'sign' is none of calculation, carry, operation"):
        wrong_step(CHAIN, 0, 0, "sign")  # type: ignore[arg-type]


@st.composite
def small_chains(draw: st.DrawFn) -> Chain:
    """As the preset's: values from 0 to 99, and no operation that changes nothing."""
    value = start = draw(st.integers(1, 99))
    operations = []
    for _ in range(draw(st.integers(1, 6))):
        possible = [("+", 1, 99 - value), ("-", 1, value), ("*", 2, min(9, 99 // value if value else 0))]
        sign, least, most = draw(st.sampled_from([each for each in possible if each[1] <= each[2]]))
        operand = draw(st.integers(least, most))
        operations.append((sign, operand))
        value = SIGNS[sign](value, operand)
    return Chain(start, tuple(operations))


def any_chains() -> st.SearchStrategy[Chain]:
    """Also below 0, and with operations that change nothing."""
    operations = st.lists(st.tuples(st.sampled_from(sorted(SIGNS)), st.integers(-20, 20)), min_size=1)
    return st.builds(Chain, st.integers(-99, 99), operations.map(tuple))


def row_of(chain: Chain) -> Row:
    return {"meta": {"start": chain.start, "operations": [list(each) for each in chain.operations]}}


@given(st.one_of(small_chains(), any_chains()), st.sampled_from(STYLES), st.data())
def test_right_steps_are_right_and_a_wrong_one_is_found_where_it_stands(
    chain: Chain, style: Style, data: st.DataObject
) -> None:
    lines = [*chain.steps(style), f"Answer: {chain.result}"]
    for count in range(len(lines) + 1):
        assert first_wrong_step(row_of(chain), lines[:count]) is None
    index = data.draw(st.integers(0, len(chain.operations) - 1))
    kind = data.draw(st.sampled_from(STEP_ERRORS))
    seed = data.draw(st.integers())
    wrong = wrong_step(chain, index, seed, kind, style)
    assert wrong != lines[index]
    assert first_wrong_step(row_of(chain), [*lines[:index], wrong, *lines[index + 1 :]]) == index


@given(small_chains(), st.sampled_from(STEP_ERRORS), st.integers(0, 5), st.integers())
def test_a_wrong_step_has_the_error_that_was_asked_for(
    chain: Chain, kind: StepError, index: int, seed: int
) -> None:
    index %= len(chain.operations)
    line = wrong_step(chain, index, seed, kind)
    said = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", line)  # no number is below 0
    assert said is not None
    left, result = int(said[1]), int(said[4])
    before = [chain.start, *chain.values][index]
    sign, operand = chain.operations[index]
    assert int(said[3]) == operand
    consistent = result == SIGNS[said[2]](left, operand)
    assert (left == before, said[2] == sign, consistent) == {
        "calculation": (True, True, False),
        "carry": (False, True, True),
        "operation": (True, False, True),
    }[kind]
    if kind == "operation":
        assert result != SIGNS[sign](left, operand)
