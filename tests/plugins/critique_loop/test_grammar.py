"""The two forms of critiques: written, read back, and refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.plugins.critique_loop.grammar import FORMS, Block, Critique, normal, parse, render

PAPER = """
  Step sentence:   7+5=12
Correctness of the step: Correct
Explanation: fine
 Step sentence: 12*3=38

 Correctness of the step:  WRONG.
Explanation: 12*3=36
Correctness of the final answer : Wrong
"""


def any_critique(draw: random.Random) -> Critique:
    def text(least: int) -> str:
        return normal(
            " ".join(draw.choice(["12*3=36", "so", "a|b", "x = 3."]) for _ in range(draw.randint(least, 4)))
        )

    blocks = tuple(Block(text(1), draw.random() < 0.5, text(0)) for _ in range(draw.randint(1, 5)))
    return Critique(blocks, draw.random() < 0.5, text(0))


@pytest.mark.parametrize("form", FORMS)
def test_oracle_8_what_is_written_is_read_back(form: Any) -> None:
    """200 drawn critiques: parse(render(c)) = c."""
    draw = random.Random(0)
    drawn = [any_critique(draw) for _ in range(200)]
    assert [parse(render(one, form), form) for one in drawn] == drawn


def test_oracle_8_the_first_error_is_the_first_wrong_or_nothing() -> None:
    right, wrong = Block("1+1=2", True), Block("2*2=5", False)
    assert Critique((right, wrong, right, wrong), False).first_error == 1
    assert Critique((right, right), False).first_error is None
    assert Critique((right, wrong, right), False).labels == [True, False, True]


def test_white_space_and_case_do_not_matter() -> None:
    found = parse(PAPER)
    assert found == Critique((Block("7+5=12", True, "fine"), Block("12*3=38", False, "12*3=36")), False)
    assert parse("\n 7+5=12   |ok|\n\n answer |ok| \n", "compact") == Critique((Block("7+5=12", True),), True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think this is wrong.",
        "Correctness of the final answer: Wrong",
        "Step sentence: 1+1=2\nCorrectness of the step: Correct\nExplanation: yes",
        "Step sentence: 1+1=2\nCorrectness of the final answer: Wrong",
        "Step sentence: 1+1=2\nCorrectness of the step: Maybe\nCorrectness of the final answer: Wrong",
        "Well. Step sentence: 1+1=2\nCorrectness of the step: Wrong\nCorrectness of the final answer: Wrong",
    ],
)
def test_what_is_no_critique_is_read_as_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["", "7+5=12 |ok|", "answer |ok|", "|ok|\nanswer |ok|", "7+5=12 ok\nanswer |no|",
     "answer |ok|\nanswer |no|", "1 |ok| 2 |no| 3\nanswer |no|", "7+5=12 |ok|\nanswer |ok|\n8 |ok|"],
)  # fmt: skip
def test_what_is_no_compact_critique_is_read_as_none(text: str) -> None:
    assert parse(text, "compact") is None


@pytest.mark.parametrize(
    ("form", "critique"),
    [
        ("paper", Critique((), True)),
        ("paper", Critique((Block("", True),), True)),
        ("paper", Critique((Block("Explanation: 3", True),), True)),
        ("paper", Critique((Block("two\nlines", True),), True)),
        ("compact", Critique((Block("answer", True),), True)),
        ("compact", Critique((Block("1", True, "x |no| y"),), True)),
    ],
)
def test_what_nobody_could_read_back_is_refused(form: Any, critique: Critique) -> None:
    with pytest.raises(LlmfwError, match=r"error\[GRAMMAR\].*; leave the record out"):
        render(critique, form)
